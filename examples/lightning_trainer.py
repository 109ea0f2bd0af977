"""DHP in a Trainer of Lightning: one callback; what is added to an ordinary module is marked."""

import lightning as L
import torch
import torch.nn.functional as F

import metaprune as mp
from digits import Net, accuracy, loaders

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Lit(L.LightningModule):
    """An ordinary module."""

    def __init__(self, net: torch.nn.Module, lr: float = 2e-3) -> None:
        super().__init__()
        self.net = net
        self.lr = lr
        self.search = None  # added

    def training_step(self, batch: list, index: int) -> torch.Tensor:
        """The loss."""
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        groups = self.search.groups(self.lr) if self.search else self.net.parameters()  # changed
        return torch.optim.AdamW(groups, self.lr)


def main(epochs: int = 5) -> float:
    """Train, search, cut, train on; the accuracy in the end."""
    L.seed_everything(0, verbose=False)
    training, test = loaders()
    lit = Lit(Net())
    L.Trainer(max_epochs=epochs, accelerator="cpu", **QUIET).fit(lit, training)
    print(f"dense: {accuracy(lit.net, test):.1f} %")

    graph = mp.trace(lit.net, (next(iter(training))[0][:2],))  # added
    budget = mp.Budget(macs=0.4, multiple_of=4)  # added
    lit.search = mp.DHP().start(lit.net, graph, budget, steps=epochs * len(training))  # added
    lit.net = lit.search.model  # added
    callback = mp.integrations.lightning.SearchCallback(lit.search)  # added
    L.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[callback], **QUIET).fit(lit, training)

    lit = Lit(lit.search.finish().model, lr=1e-3)
    L.Trainer(max_epochs=epochs, accelerator="cpu", **QUIET).fit(lit, training)
    print(f"{mp.macs(graph, callback.search.plan) / mp.macs(graph):.0%} of the MACs: {accuracy(lit.net, test):.1f} %")
    return accuracy(lit.net, test)


if __name__ == "__main__":
    main()
