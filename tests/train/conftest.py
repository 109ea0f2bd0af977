"""A small task that trains in milliseconds."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from metaprune.train import Classification, Recipe, Task


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)  # small networks wait longer for a second one than they gain


@pytest.fixture
def loader() -> DataLoader[tuple[Tensor, ...]]:
    """Three classes that differ in brightness; 6 batches of 8, in a new order each time."""
    labels = torch.arange(48) % 3
    images = 0.3 * torch.randn(48, 1, 4, 4) + labels.view(-1, 1, 1, 1) - 1
    return DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=True)


@pytest.fixture
def task(loader: DataLoader[tuple[Tensor, ...]]) -> Task:
    return Classification(loader, loader)


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 3)
    )


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(epochs=3, lr=0.05, precision="32-true", device="cpu")
