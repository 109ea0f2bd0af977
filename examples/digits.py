"""What the examples stand on: scikit-learn's digits, and a small network."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """A stem, a body of two layers, and a head."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of pictures of 8 × 8."""
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def tensors() -> tuple[TensorDataset, TensorDataset]:
    """Digits to train on, and to test on."""
    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(found.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return TensorDataset(x[order[:1200]], y[order[:1200]]), TensorDataset(x[order[1200:]], y[order[1200:]])


def loaders(batch_size: int = 64) -> tuple[DataLoader, DataLoader]:
    """The same in batches."""
    train, test = tensors()
    return DataLoader(train, batch_size, shuffle=True), DataLoader(test, 256)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Share of the digits that are recognised, in per cent."""
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in loader)
    return 100 * right / len(loader.dataset)
