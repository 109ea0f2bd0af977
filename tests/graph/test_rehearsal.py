"""The given model is bit for bit what it was, whatever its forward writes, and what it writes never reaches a cut."""

from __future__ import annotations

import copy
import gc
import logging
import sys
import threading
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import metaprune as mp
from metaprune.graph.provenance import Tagged
from metaprune.graph.reach import reached
from metaprune.graph.rehearsal import Unwritten, rehearsal
from tests.graph.odd import ODD, OUTSIDE, RenormsItsWeight, Two, WritesToItsClass, state_of
from tests.zoo import few

X = (5, 4)
WAIT = 120.0  # seconds for a thread that should end at once


def example() -> tuple[Tensor]:
    return (torch.randn(X, generator=torch.Generator().manual_seed(1)).double(),)


def made(name: str, called: bool) -> nn.Module:
    WritesToItsClass.cache.clear()
    model = ODD[name]().double()
    if called:  # the user ran it before, with gradients
        model(example()[0].requires_grad_()).sum().backward()
    return model


HOLDS_A_WIDTH = {"WritesToItsClass", "LazyCache"}
"""Called before, the class or module holds a tensor of the width that nobody follows: the axis stays whole."""


def half(graph: mp.ChannelGraph) -> mp.Plan:
    return mp.Plan({"a": [0, 2, 3, 6]} if graph.axes["a"].fixed is None else {})


@few
def cut(name: str, called: bool) -> tuple[nn.Module, mp.ChannelGraph, nn.Module, list[list[Any]]]:
    """The network, its graph, what it is cut to, and what it was before it was traced, afterwards and at the end."""
    model = made(name, called)
    states = [state_of(model)]
    graph = mp.trace(model, example())
    states.append(state_of(model))
    small = mp.slice(model, graph, half(graph))
    return model, graph, small, [*states, state_of(model)]


@pytest.mark.parametrize("called", [False, True], ids=["fresh", "called"])
@pytest.mark.parametrize("name", ODD)
def test_the_given_model_is_bit_for_bit_what_it_was(name: str, called: bool) -> None:
    x = example()
    model, graph, small, (before, traced, sliced) = cut(name, called)
    assert traced == before, "after trace"
    assert sliced == before, "after slice"
    leaked = [value for value in reached(model, small, OUTSIDE) if isinstance(value, FakeTensor)]
    assert not leaked
    assert not [v for o in reached(model, small, OUTSIDE) for v in _entries(o) if isinstance(v, Tagged)]
    assert (graph.axes["a"].fixed is None) != (called and name in HOLDS_A_WIDTH)
    before = state_of(model)
    masked = mp.mask(model, graph, half(graph))
    assert state_of(model) == before, "after mask"
    if name not in {"Training", "MergesOnEval"}:
        torch.testing.assert_close(small.eval()(*x), masked.eval()(*x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ODD)
def test_what_a_cut_writes_stays_with_it(name: str) -> None:
    x = example()
    model, _, small, _ = cut(name, called=True)
    held = {id(value) for value in reached(model, through_functions=False) if not isinstance(value, type)}
    before = _inside(model)
    small.train()(x[0].requires_grad_()).sum().backward()
    assert _inside(model) == before
    shared = [v for v in reached(small, through_functions=False) if isinstance(v, Tensor | nn.Module) and id(v) in held]
    assert not shared
    memory = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not memory & {tensor.data_ptr() for tensor in small.state_dict().values()}


def _inside(model: nn.Module) -> list[Any]:
    random_numbers_and_globals = 9
    return state_of(model)[random_numbers_and_globals:]


def _entries(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple | set) else list(getattr(value, "__dict__", {}).values())


class Fails(Two):
    error: type[BaseException] = KeyboardInterrupt

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Tensor] = []

    def between(self, h: Tensor) -> Tensor:
        self.log.append(h)
        raise self.error("stop")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_stays_after_an_error(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fails, "error", error)
    model = Fails().double()
    before, process = state_of(model), _process()
    with pytest.raises(mp.MetapruneError if error is RuntimeError else error, match="stop"):
        mp.trace(model, example())
    assert state_of(model) == before
    assert _process() == process


def _process() -> list[Any]:
    return [
        fx.GraphModule.recompile,
        fx.proxy.CapturedTraceback,
        proxy_tensor._extract_tensor_metadata,
        nn.Module.to,
        ShapeEnv._log_real_tensor_propagation,
        torch.compiler.is_compiling(),
        logging.root.manager.disable,
        logging.Logger.handle,
        sys.stderr,
        list(warnings.filters),
        warnings.showwarning,
        gc.isenabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch.backends.mha.get_fastpath_enabled(),
        torch._dynamo.config.do_not_emit_runtime_asserts,
        torch.get_default_dtype(),
    ]


def test_threads_trace_side_by_side() -> None:
    mp.trace(Two(), (torch.randn(2, 4),))
    process, errors, tables = _process(), [], []
    shared = Two()

    def work(model: nn.Module) -> None:
        try:
            graph = mp.trace(model, (torch.randn(2, 4),))
            small = mp.slice(model, graph, mp.Plan({"a": [1, 2]}))
            tables.append((str(graph), small(torch.zeros(2, 4)).shape))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in (shared, shared, Two(), Two())]
    for thread in threads:
        thread.daemon = True
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads)
    assert not errors
    assert len(tables) == len(threads)
    assert len(set(tables)) == 1
    assert _process() == process


def test_a_refusal_leaves_the_model_as_it_was() -> None:
    model = RenormsItsWeight().double()
    before = state_of(model)
    with pytest.raises(mp.MetapruneError):
        mp.trace(model, example())
    assert state_of(model) == before


class Handler(logging.Handler):
    heard: tuple[str, ...] = ()

    def emit(self, record: logging.LogRecord) -> None:
        self.heard = (*self.heard, record.getMessage())


class Asks(Two):
    """Logs, and has another thread log, write and build a module of `torch.fx` meanwhile."""

    def between(self, h: Tensor) -> Tensor:
        logging.getLogger("elsewhere").error("from the network")

        def other() -> None:
            logging.getLogger("elsewhere").error("from another thread")
            sys.stderr.write("written by another thread\n")
            module = fx.symbolic_trace(nn.Linear(2, 2))
            logging.getLogger("elsewhere").error(type(module).forward.__qualname__)

        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        thread.join(WAIT)
        return h


def test_another_thread_is_heard_while_one_traces(capsys: pytest.CaptureFixture[str]) -> None:
    """Silence, and the switches of an export, are for the thread that traces."""
    handler = Handler()
    logging.getLogger("elsewhere").addHandler(handler)
    try:
        mp.trace(Asks(), (torch.randn(2, 4),))
    finally:
        logging.getLogger("elsewhere").removeHandler(handler)
    assert set(handler.heard) == {"from another thread", "forward"}
    assert "written by another thread" in capsys.readouterr().err


def test_modes_are_what_they_were() -> None:
    model = Two()
    model.a.eval()
    with rehearsal(model, training=True) as actor:
        assert all(module.training for module in actor.modules())
    assert [module.training for module in model.modules()] == [True, False, True]


def test_writes_to_weights_are_put_back() -> None:
    model = Two()
    before = copy.deepcopy(model.state_dict())
    with Unwritten(model.parameters()), torch.no_grad():
        model.a.weight[0].mul_(2)
        model.a.weight.data.add_(1)
        nn.init.zeros_(model.b.bias)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
