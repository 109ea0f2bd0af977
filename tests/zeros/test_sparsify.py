"""Zeros by magnitude: exact counts, the pattern along the inputs, and that training leaves them alone."""

import copy

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from tests.methods import small


def layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(8, 6, 3, groups=2),
        nn.BatchNorm2d(6),
        nn.ConvTranspose2d(6, 4, 2),
        nn.ConvTranspose2d(4, 8, 2, groups=2),
        nn.ConvTranspose2d(8, 4, 1, groups=2),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.Bilinear(3, 8, 2),
    )


@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.8, 0.99])
def test_exactly_so_many_are_zero_and_they_are_the_smallest(sparsity: float) -> None:
    model = layers()
    sparse = mp.sparsify(model, sparsity)
    weights = torch.cat([model.get_parameter(name).detach().flatten() for name in sparse.masks])
    after = torch.cat([sparse.model.get_parameter(name).detach().flatten() for name in sparse.masks])
    count = round(sparsity * len(weights))
    assert int((after == 0).sum()) == count
    assert sparse.sparsity == pytest.approx(count / len(weights))
    assert not count or weights[after == 0].abs().max() <= weights[after != 0].abs().min()
    assert torch.equal(after[after != 0], weights[after != 0])


def test_equal_weights_are_counted_too() -> None:
    """Of equals, the first ones go; of neighbours that are equal, the first ones stay."""
    model = nn.Linear(10, 10)
    nn.init.ones_(model.weight)
    mask = mp.sparsify(model, 0.25).masks["weight"].flatten()
    assert (mask[:25].any().item(), mask[25:].all().item()) == (False, True)
    assert mp.sparsify(model, n=2, m=5).masks["weight"].tolist() == [[True, True, False, False, False] * 2] * 10


def test_a_state_puts_the_zeros_back_and_is_of_these_masks() -> None:
    model = nn.Linear(4, 3)
    sparse, other = mp.sparsify(model, 0.5), mp.sparsify(nn.Linear(4, 3), 0.5)
    state = copy.deepcopy(sparse.state_dict())
    nn.init.ones_(sparse.model.weight)
    sparse.load_state_dict(state)
    assert torch.equal(sparse.model.weight != 0, sparse.masks["weight"])
    assert sparse.sparsity == 0.5
    for wrong in (other.state_dict(), {}, {**state, "more": state["weight"]}):
        with pytest.raises(MetapruneError, match="expected a state with these masks, got others"):
            sparse.load_state_dict(wrong)


def test_two_of_four_along_the_inputs() -> None:
    """Judged entry by entry: for each output and each place of the kernel, two of four neighbouring inputs."""
    model = layers()
    sparse = mp.sparsify(model, n=2, m=4)
    assert set(sparse.masks) == {"0.weight", "4.weight", "6.weight", "7.weight"}
    assert sparse.dense == {
        "2.weight": "it has 6 inputs, no multiple of 4",
        "3.weight": "it has 2 inputs, no multiple of 4",
    }
    assert sparse.sparsity == 0.5

    def judge(before: torch.Tensor, after: torch.Tensor) -> None:
        stays = before.abs().argsort(descending=True)[:2]
        assert torch.nonzero(after)[:, 0].tolist() == sorted(stays.tolist())

    for name, dim, inputs in (("0", 1, 4), ("4", 0, 8), ("6", 1, 12), ("7", 2, 8)):
        before, after = model[int(name)].weight.detach(), sparse.model[int(name)].weight.detach()
        before, after = (w.movedim(dim, -1).reshape(-1, inputs) for w in (before, after))
        for row_before, row_after in zip(before, after, strict=True):
            for block in range(0, inputs, 4):
                judge(row_before[block : block + 4], row_after[block : block + 4])


def test_two_of_four_fits_the_format_of_semi_structured_kernels() -> None:
    """PyTorch's own format for them (half the values, two bits beside each) gives tuned weights back, bit for bit."""
    from torch.sparse import _semi_structured_conversions as conversions

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 3))
    sparse = mp.sparsify(model, n=2, m=4)
    mp.fit(sparse.model, small.task(), small.recipe(1), during=[sparse], progress=False)

    def there_and_back(weight: torch.Tensor) -> torch.Tensor:
        return conversions.sparse_semi_structured_to_dense_cutlass(
            *conversions.sparse_semi_structured_from_dense_cutlass(weight)
        )

    for index in (1, 3):
        tuned, dense = (net[index].weight.detach().bfloat16() for net in (sparse.model, model))
        assert torch.equal(there_and_back(tuned), tuned)
        assert not torch.equal(there_and_back(dense), dense)


@pytest.mark.parametrize("how", [{"sparsity": 0.5}, {"n": 2, "m": 4}], ids=str)
def test_zeros_do_not_hang_on_the_default_device(how: dict[str, float]) -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4))
    with torch.device("meta"):
        sparse = mp.sparsify(model, **how)
    assert sparse.sparsity == 0.5
    assert all(torch.equal(sparse.model.get_parameter(n) != 0, mask) for n, mask in sparse.masks.items())


def test_a_tied_weight_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    sparse = mp.sparsify(model, 0.5)
    assert list(sparse.masks) == ["0.weight"]
    assert sparse.model[1].weight is sparse.model[0].weight


@pytest.mark.parametrize("how", [{"sparsity": 0.7}, {"n": 2, "m": 4}], ids=str)
def test_training_keeps_the_zeros(how: dict[str, float]) -> None:
    model = small.network()
    before = copy.deepcopy(model.state_dict())
    sparse = mp.sparsify(model, **how)
    mp.fit(sparse.model, small.task(), small.recipe(1), during=[sparse], progress=False)
    for name, mask in sparse.masks.items():
        weight = sparse.model.get_parameter(name).detach()
        assert not weight[~mask].any()
        assert not torch.equal(weight[mask], before[name][mask])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    free = mp.sparsify(model, **how).model
    mp.fit(free, small.task(), small.recipe(1), progress=False)
    assert any(free.get_parameter(name)[~mask].any() for name, mask in sparse.masks.items() if not mask.all())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, "expected sparsity, or n and m"),
        ({"sparsity": 0.5, "n": 2, "m": 4}, "expected sparsity, or n and m"),
        ({"n": 2}, "expected sparsity, or n and m"),
        ({"sparsity": 1.0}, "in \\[0, 1\\)"),
        ({"sparsity": -0.1}, "in \\[0, 1\\)"),
        ({"sparsity": True}, "in \\[0, 1\\)"),
        ({"n": 0, "m": 4}, "0 < n < m"),
        ({"n": 2.0, "m": 4}, "0 < n < m"),
        ({"n": 4, "m": 4}, "0 < n < m"),
        ({"n": 2, "m": 7}, "multiples of 7"),
    ],
)
def test_what_it_refuses(how: dict[str, float], said: str) -> None:
    with pytest.raises(MetapruneError, match=said):
        mp.sparsify(nn.Linear(8, 4), **how)


def test_a_network_without_layers() -> None:
    with pytest.raises(MetapruneError, match="got none"):
        mp.sparsify(nn.BatchNorm2d(4), 0.5)


class Turned(nn.Module):
    """A linear layer with its weight the other way round, as some libraries hold it, and a table that is added."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))
        self.table = nn.Parameter(torch.randn(3, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(2, 3, -1) + self.table


class Mixed(nn.Module):
    """Attention with its three projections in one tensor, a turned layer, an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.turned = Turned(8, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        return self.head(self.turned(self.attention(x, x, x, need_weights=False)[0]))


def test_attention_is_covered_and_what_is_left_dense_is_named() -> None:
    sparse = mp.sparsify(Mixed(), n=2, m=4)
    assert list(sparse.masks) == ["attention.in_proj_weight", "attention.out_proj.weight", "head.weight"]
    assert float((sparse.model.attention.in_proj_weight == 0).double().mean()) == 0.5
    assert set(sparse.dense) == {"embed.weight", "turned.weight", "turned.table"}
    assert "looked up" in sparse.dense["embed.weight"]
    assert "graph=mp.trace" in sparse.dense["turned.weight"]


def test_a_graph_tells_the_weights_of_any_module_and_their_inputs() -> None:
    model = Mixed()
    graph = mp.trace(model, (torch.randint(7, (2, 3)),))
    sparse = mp.sparsify(model, n=2, m=4, graph=graph)
    assert {"turned.weight", "attention.in_proj_weight"} <= set(sparse.masks)
    assert (sparse.masks["turned.weight"].view(2, 4, 12).sum(1) == 2).all()
    assert set(sparse.dense) == {"embed.weight", "turned.table"}


def test_recurrent_and_functional_layers() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Parameter(torch.randn(4, 4, 3))
            self.turned = nn.Parameter(torch.randn(4, 4, 2))
            self.lstm = nn.LSTM(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.conv1d(x, self.filters, padding=1)
            return self.lstm(nn.functional.conv_transpose1d(x, self.turned, stride=2, groups=2))[0]

    model, x = Functional(), torch.randn(2, 4, 4)
    graph = mp.trace(model, (x,))
    assert set(mp.sparsify(model, 0.5).masks) == {"lstm.weight_ih_l0", "lstm.weight_hh_l0"}
    sparse = mp.sparsify(model, n=1, m=2, graph=graph)
    assert set(sparse.masks) == {"filters", "turned", "lstm.weight_ih_l0", "lstm.weight_hh_l0"}
    assert (sparse.masks["filters"].view(4, 2, 2, 3).sum(2) == 1).all()
    assert (sparse.masks["turned"].view(2, 2, 4, 2).sum(1) == 1).all()


def test_layers_that_are_skipped_are_named() -> None:
    sparse = mp.sparsify(Mixed(), 0.5, skip=["attention.in*"])
    assert list(sparse.masks) == ["attention.out_proj.weight", "head.weight"]
    assert "skipped" in sparse.dense["attention.in_proj_weight"]
    assert list(mp.sparsify(Mixed(), 0.5, skip=["attention"]).masks) == ["head.weight"]
    for skip, said in (
        (["heads"], "fits no weight"),
        ("head", "list of patterns"),
        (["head", "attention"], "got none"),
    ):
        with pytest.raises(MetapruneError, match=said):
            mp.sparsify(Mixed(), 0.5, skip=skip)
