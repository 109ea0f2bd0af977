"""PyTorch's own attention, written out so that it can be cut."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import metaprune as mp
from metaprune.saving import save
from metaprune.surgery.attention import observe, written_out

DIM, HEADS, LENGTH = 12, 3, 5


class Attends(nn.Module):
    """Attention called in one way, on queries, keys and values that differ, with biases that are not zero."""

    def __init__(self, call: dict[str, Any], **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.call = call
        self.attention = nn.MultiheadAttention(DIM, HEADS, dtype=torch.float64, **settings)
        self.widths = self.attention.kdim, self.attention.vdim
        for name, parameter in self.attention.named_parameters():
            if "bias" in name:
                nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Any:
        keys, values = x[..., : self.widths[0]].sin(), x[..., -self.widths[1] :].cos()
        return self.attention(x, keys, values, **self.call)


def inputs(batch_first: bool) -> Tensor:
    shape = (2, LENGTH, DIM) if batch_first else (LENGTH, 2, DIM)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CAUSAL = torch.ones(LENGTH, LENGTH).triu(1).bool()
PADDED = torch.tensor([[False, False, False, True, True], [False, False, False, False, True]])
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "without weights": {"need_weights": False},
    "weights of each head": {"average_attn_weights": False},
    "causal": {"attn_mask": CAUSAL, "need_weights": False, "is_causal": True},
    "padded": {"key_padding_mask": PADDED},
    "both masks": {"key_padding_mask": PADDED, "attn_mask": CAUSAL, "need_weights": False},
    "a bias for each head": {
        "attn_mask": torch.arange(2.0 * HEADS * LENGTH * LENGTH).view(-1, LENGTH, LENGTH).double()
    },
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_written_out_it_computes_the_same(name: str, batch_first: bool) -> None:
    model, x = Attends(CALLS[name], batch_first=batch_first).eval(), inputs(batch_first)
    calls = observe(model, [mp.Call((x,))])
    plain = written_out(model, calls)
    assert list(calls) == ["attention"]
    assert isinstance(plain.attention, fx.GraphModule)
    assert isinstance(model.attention, nn.MultiheadAttention)
    for one, other in zip(model(x), plain(x), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    again = written_out(plain, calls)
    assert again is plain


@pytest.mark.parametrize("settings", [{"bias": False}, {"dropout": 0.4}, {"kdim": 7, "vdim": 9}])
def test_settings_are_kept(settings: dict[str, Any]) -> None:
    model, x = Attends({}, batch_first=True, **settings), inputs(True)
    frozen = {"out_proj.weight", "k_proj.weight"} if "kdim" in settings else {"out_proj.weight"}
    for parameter in (model.attention.out_proj.weight, model.attention.k_proj_weight):
        if parameter is not None:
            parameter.requires_grad_(False)
    plain = written_out(model, observe(model.eval(), [mp.Call((x,))]))
    torch.testing.assert_close(model(x)[0], plain(x)[0], rtol=1e-12, atol=1e-12)
    assert {n.removeprefix("attention.") for n, p in plain.named_parameters() if not p.requires_grad} == frozen
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())
    noisy = (plain.train()(x)[0] - plain(x)[0]).abs().max() > 0
    assert noisy == bool(settings.get("dropout"))


def test_it_is_plain_pytorch() -> None:
    """It is copied, pickled and asked for attributes without this package."""
    model, x = Attends({}, batch_first=True).eval(), inputs(True)
    plain = written_out(model, observe(model, [mp.Call((x,))])).attention
    for other in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        assert torch.equal(plain(x, x.sin(), x.cos())[0], other(x, x.sin(), x.cos())[0])
        assert (other.num_heads, other.embed_dim, other.batch_first) == (HEADS, DIM, True)
    assert "metaprune" not in plain.code
    assert all("metaprune" not in type(module).__module__ for module in plain.modules())


def test_another_call_than_the_traced_one_is_refused() -> None:
    model, x = Attends({"need_weights": False}, batch_first=True).eval(), inputs(True)
    plain: Any = written_out(model, observe(model, [mp.Call((x,))])).attention
    with pytest.raises(AssertionError, match="attn_mask was None"):
        plain(x, x, x, need_weights=False, attn_mask=CAUSAL)
    with pytest.raises(AssertionError, match="need_weights was False"):
        plain(x, x, x)


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0] + self.attention(x, x, x)[0]


def hooked() -> nn.Module:
    model = Attends({}, batch_first=True)
    model.attention.register_forward_hook(lambda module, args, output: (2 * output[0], output[1]))
    return model


class Tied(Attends):
    """Its last weight is another layer's as well."""

    def __init__(self) -> None:
        super().__init__({}, batch_first=True)
        self.last = nn.Linear(DIM, DIM, dtype=torch.float64)
        self.last.weight = self.attention.out_proj.weight

    def forward(self, x: Tensor) -> Any:
        return self.last(super().forward(x)[0])


CANNOT: dict[str, Callable[[], nn.Module]] = {
    "called twice": CalledTwice,
    "zeros beside the keys": lambda: Attends({}, batch_first=True, add_zero_attn=True),
    "biases beside the keys": lambda: Attends({}, add_bias_kv=True),
    "a hook": hooked,
    "tied": Tied,
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_written_out_stays(name: str) -> None:
    model, x = CANNOT[name](), inputs(True)
    assert observe(model.eval(), [mp.Call((x,))]) == {}
    graph = mp.trace(model, (x,))
    assert not graph.written_out
    assert not [axis for axis in graph.free.values() if axis.size in (HEADS, DIM // HEADS)]


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_is_cut_saved_and_loaded(batch_first: bool, tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(DIM, HEADS, 20, batch_first=batch_first, dtype=torch.float64)
    model = nn.Sequential(
        nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(DIM, 4).double()
    ).eval()
    x = inputs(batch_first)
    graph = mp.trace(model, (x,))
    assert sorted(axis.size for axis in graph.free.values()) == [HEADS, 4, 4, 20]
    plan = mp.Plan({name: range(-(-axis.size // 2)) for name, axis in graph.free.items()})
    small = mp.slice(model, graph, plan)
    torch.testing.assert_close(small(x), mp.mask(model, graph, plan)(x), rtol=1e-12, atol=1e-12)
    assert mp.params(graph, plan) == sum(parameter.numel() for parameter in small.parameters())
    loaded = mp.load(save(tmp_path / "small", small, plan, graph), model)
    assert loaded.state_dict().keys() == small.state_dict().keys()
    assert all(map(torch.equal, loaded.state_dict().values(), small.state_dict().values()))
    torch.testing.assert_close(loaded(x), small(x), rtol=1e-12, atol=1e-12)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x, x, x, need_weights=False)[0]


class Curious(Block):
    """Reads of its attention what the one that is written out does not have."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.attention.in_proj_weight.dtype) * self.attention.head_dim**-0.5
        return super().forward(x)


@pytest.mark.parametrize("curious", [(1,), (0, 1)])
def test_a_module_of_which_code_reads_more_stays_as_it_is(curious: tuple[int, ...]) -> None:
    """And those in modules of other classes are written out all the same."""
    model, x = nn.Sequential(*(Curious() if place in curious else Block() for place in range(2))).eval(), inputs(True)
    assert set(observe(model, [mp.Call((x,))])) == {f"{place}.attention" for place in range(2) if place not in curious}
    graph = mp.trace(model, (x,))
    plan = mp.Plan({name: range(0, axis.size, 2) for name, axis in graph.free.items()})
    assert len(plan.kept) >= 2 - len(curious)
    torch.testing.assert_close(mp.slice(model, graph, plan)(x), mp.mask(model, graph, plan)(x), rtol=1e-10, atol=1e-10)
