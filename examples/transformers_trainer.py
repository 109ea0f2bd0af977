"""DHP in the Trainer of transformers: one callback, and the pruned network as a folder; what is added is marked."""

import tempfile

import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import metaprune as mp
from digits import tensors


class Pictures(torch.utils.data.Dataset):
    """Digits, as the Trainer takes them."""

    def __init__(self, found: torch.utils.data.TensorDataset) -> None:
        self.found = found

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image, label = self.found[index]
        return {"pixel_values": image, "labels": label}


def trained(model: torch.nn.Module, data: Pictures, folder: str, epochs: int, lr: float, **more: object) -> None:
    """An ordinary run of the Trainer."""
    arguments = TrainingArguments(
        folder,
        num_train_epochs=epochs,
        learning_rate=lr,
        per_device_train_batch_size=64,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    Trainer(model, arguments, train_dataset=data, **more).train()


@torch.no_grad()
def accuracy(model: torch.nn.Module, data: Pictures) -> float:
    """Share of the digits that are recognised, in per cent."""
    images, labels = data.found.tensors
    return 100 * float((model.eval()(images).logits.argmax(1) == labels).float().mean())


def main(epochs: int = 15) -> float:
    """Train, search, cut, train on, write; the accuracy in the end."""
    torch.manual_seed(0)
    train, test = map(Pictures, tensors())
    config = ViTConfig(
        image_size=8, patch_size=2, num_channels=1, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = ViTForImageClassification(config)
    with tempfile.TemporaryDirectory() as folder:
        trained(model, train, folder, epochs, 3e-3)
        print(f"dense: {accuracy(model, test):.1f} %")

        inputs = {"pixel_values": train.found.tensors[0][:2]}
        limits = mp.Limits(alike=("*",))  # added: one configuration for all blocks
        graph = limits.on(mp.trace(model, (), inputs))  # added
        steps = epochs * -(-len(train) // 64)
        search = mp.DHP().start(model, graph, mp.Budget(macs=0.5, multiple_of=1), steps=steps)  # added
        optimizer = torch.optim.AdamW(search.groups(3e-3), 3e-3)  # its groups
        callback = mp.integrations.transformers.SearchCallback(search)  # added
        trained(search.model, train, folder, epochs, 3e-3, optimizers=(optimizer, None), callbacks=[callback])
        cut = search.finish()  # added

        trained(cut.model, train, folder, epochs, 1e-3)
        print(f"{mp.macs(graph, cut.plan) / mp.macs(graph):.0%} of the MACs: {accuracy(cut.model, test):.1f} %")
        small = f"{folder}/small"
        why = mp.integrations.transformers.save_pretrained(small, cut.model, cut.plan, graph)
        print("written for plain from_pretrained" if why is None else f"written for mp.from_pretrained: {why}")
        return accuracy(mp.from_pretrained(small), test)


if __name__ == "__main__":
    main()
