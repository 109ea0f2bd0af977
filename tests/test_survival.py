"""What a cut network must survive: a disk, both exports, a step of training, the compiler."""

import os
import shutil
import warnings
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import metaprune as mp
from metaprune import saving
from metaprune.formats import onnx
from metaprune.surgery.slice import carve
from tests.laws import oracle
from tests.zoo import ZOO

CUT = (
    "resnet",
    "densenet",
    "resnext",
    "mobilenet_v2",
    "vit",
    "llama",
    "cross_attention",
    "tied_autoencoder",
    "mixer",
    "unet",
)
QUICK = {"tied_autoencoder"}  # for what takes long
ALIKE = {"densenet", "resnext"}  # made of the same kinds of layers as others of these
COMPILER = "inductor" if shutil.which(os.environ.get("CXX", "g++")) else "aot_eager"  # without one, the capture alone


class Survivor(NamedTuple):
    """A network of the zoo, cut to half."""

    dense: nn.Module
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    graph: mp.ChannelGraph
    plan: mp.Plan


@cache
def cut(name: str, dtype: torch.dtype = torch.float64) -> Survivor:
    model, *example = ZOO[name].example()
    args, kwargs = pytree.tree_map(lambda x: x.to(dtype) if is_real(x) else x, example)
    dense = model.to(dtype)
    graph = mp.trace(dense, args, kwargs)
    done = carve(dense, graph, oracle.half(graph))
    assert sum(done.plan.widths.values()) < sum(axis.size for axis in graph.free.values())
    assert oracle.counted_params(done.model) < oracle.counted_params(dense)
    return Survivor(dense, done.model, args, kwargs, graph, done.plan)


def is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def networks(but: Collection[str]) -> list[Any]:
    """By name, quickly all but these."""
    return [pytest.param(name, marks=pytest.mark.slow if name in but else ()) for name in CUT]


@pytest.mark.parametrize("name", networks(ALIKE))
def test_a_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved and loaded into a dense network of other weights, it is the same network."""
    _, model, args, kwargs, graph, plan = cut(name)
    monkeypatch.setattr(saving, "texts", lambda *_: {})  # the report is another test's
    fresh = ZOO[name].example(seed=9)[0].double()
    again = saving.load(saving.save(tmp_path, model, plan, graph, None), fresh)  # type: ignore[arg-type]
    assert oracle.fingerprint(again) == oracle.fingerprint(model)
    assert oracle.distance(oracle.call(again, args, kwargs), oracle.call(model, args, kwargs)) == 0


@pytest.mark.parametrize("name", networks(ALIKE))
def test_a_state_dict(name: str) -> None:
    """Its weights go into another copy of it that has others."""
    _, model, args, kwargs, graph, plan = cut(name)
    other = carve(ZOO[name].example(seed=9)[0].double(), graph, plan).model
    assert oracle.distance(oracle.call(other, args, kwargs), oracle.call(model, args, kwargs)) > 1e-3
    other.load_state_dict(model.state_dict())
    assert oracle.distance(oracle.call(other, args, kwargs), oracle.call(model, args, kwargs)) == 0


@pytest.mark.parametrize("name", networks(ALIKE))
def test_torch_export(name: str) -> None:
    _, model, args, kwargs, *_ = cut(name)
    program = torch.export.export(model, args, kwargs, strict=False).module()
    assert oracle.distance(oracle.call(model, args, kwargs), oracle.call(program, args, kwargs)) < 1e-6


@pytest.mark.parametrize("name", networks({*CUT} - QUICK))
def test_onnx(name: str, tmp_path: Path) -> None:
    _, model, args, kwargs, *_ = cut(name, torch.float32)
    path = mp.export(model, args, tmp_path / "cut.onnx", kwargs)
    expected = pytree.tree_leaves(oracle.call(model, args, kwargs))
    assert oracle.distance([y for y in expected if isinstance(y, Tensor)], onnx.run(path, args, kwargs)) < 1e-5


@pytest.mark.parametrize("name", networks(ALIKE))
def test_a_step_of_training(name: str) -> None:
    """Gradients reach every parameter that they reached before, and move it; frozen ones stay; the loss falls."""
    dense, _, args, kwargs, graph, plan = cut(name)
    frozen, parameter = next((n, p) for n, p in dense.named_parameters() if p.dim() > 1)
    parameter.requires_grad_(False)
    try:
        model = carve(dense, graph, plan).model
        expected = reached(gradients(dense, args, kwargs))
    finally:
        parameter.requires_grad_(True)
    assert not model.get_parameter(frozen).requires_grad
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    found = gradients(model, args, kwargs)
    assert frozen not in expected
    assert reached(found) == expected
    first = loss(model, args, kwargs)
    first.backward()
    optimizer.step()
    assert loss(model, args, kwargs) < first
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert expected <= moved <= found.keys()


@pytest.mark.parametrize("name", networks({*CUT} - QUICK))
def test_torch_compile(name: str) -> None:
    _, model, args, kwargs, *_ = cut(name, torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own
        compiled = torch.compile(model, backend=COMPILER, fullgraph=True)
        actual = oracle.call(compiled, args, kwargs)
    torch.compiler.reset()
    assert oracle.distance(oracle.call(model, args, kwargs), actual) < 1e-5


def outputs(model: nn.Module, args: Any, kwargs: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(model(*args, **kwargs))
    return [y for y in leaves if is_real(y)]


def loss(model: nn.Module, args: Any, kwargs: Any) -> Tensor:
    """To a fixed random target, so that no gradient vanishes by symmetry."""
    generator = torch.Generator().manual_seed(1)
    ys = outputs(model, args, kwargs)
    return sum(((y - torch.randn(y.shape, generator=generator, dtype=y.dtype)) ** 2).mean() for y in ys)


def gradients(model: nn.Module, args: Any, kwargs: Any) -> dict[str, Tensor]:
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss(model, args, kwargs), list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, found, strict=True) if g is not None}


def reached(gradients: dict[str, Tensor]) -> set[str]:
    """Those whose gradient is more than noise: a bias that a softmax or a norm takes away again has none."""
    most = max(gradient.norm() for gradient in gradients.values())
    return {n for n, gradient in gradients.items() if gradient.norm() > 1e-10 * most}
