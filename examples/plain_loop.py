"""DHP in a training loop of one's own: what is added to the loop is marked."""

import torch
import torch.nn.functional as F

import metaprune as mp
from digits import Net, accuracy, loaders


def train(model: torch.nn.Module, batches: list, lr: float, groups: list | None = None, after: object = None) -> None:
    """An ordinary loop."""
    optimizer = torch.optim.AdamW(model.parameters() if groups is None else groups, lr)
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if after is not None:
            after(lr)


def main(epochs: int = 5) -> float:
    """Train, search, cut, train on; the accuracy in the end."""
    torch.manual_seed(0)
    training, test = loaders()
    model = Net()
    train(model, list(training) * epochs, 2e-3)
    print(f"dense: {accuracy(model, test):.1f} %")

    batches = list(training) * epochs
    graph = mp.trace(model, (batches[0][0][:2],))  # added
    search = mp.DHP().start(model, graph, mp.Budget(macs=0.4, multiple_of=4), steps=len(batches))  # added
    train(search.model, batches, 2e-3, search.groups(2e-3), search.step)  # changed: its model, its groups, its step
    small = search.finish().model  # added

    train(small, list(training) * epochs, 1e-3)
    print(f"{mp.macs(graph, search.plan) / mp.macs(graph):.0%} of the MACs: {accuracy(small, test):.1f} %")
    return accuracy(small, test)


if __name__ == "__main__":
    main()
