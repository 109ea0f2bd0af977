"""Hooks of the user run in the search as outside, also where the network runs with channels hidden."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp
from tests.graph.test_memory import SameData


class Normed(nn.Module):
    """Norms and an average over channels, so that silent channels must be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm, self.group = nn.LayerNorm(8), nn.GroupNorm(1, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x)).relu()
        h = self.group(self.b(h)) + h.mean(1, keepdim=True)
        return self.c(h.softmax(1))


class Wary(Normed):
    """Looks at sizes, which makes no call, and makes other calls where it is exported, as masks of transformers do."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 3 and self.a.out_features != 7:
            x = x.clone() if torch.compiler.is_exporting() else x.mul(1)
        return super().forward(x)


def searched(hooked: bool, seen: list[Any], network: type[nn.Module] = Normed) -> Any:
    torch.manual_seed(0)
    model: Any = network().double()
    graph = mp.trace(model, (torch.randn(4, 5).double(),))
    if hooked:
        model.norm.register_forward_hook(lambda module, args, output: seen.append(output))
        model.b.register_forward_pre_hook(lambda module, args, kwargs: seen.append(args[0]), with_kwargs=True)
        model.c.register_full_backward_hook(lambda module, into, out: seen.append(out[0]))
    generated = mp.DHP().generate(model, graph).double()
    with torch.no_grad():
        for name, z in generated.latents.named().items():
            z[[0, 3] if name == "a" else [1]] = 0
    kept = {name: tuple(z.detach().nonzero()[:, 0].tolist()) for name, z in generated.latents.named().items()}
    generated.hide(mp.Plan(kept))
    return generated


@pytest.mark.parametrize("network", [Normed, Wary])
@pytest.mark.parametrize("batch", [4, 3], ids=["traced", "of another size"])
@pytest.mark.parametrize("training", [True, False])
def test_hooks_run_and_the_network_computes_the_same(training: bool, batch: int, network: type[nn.Module]) -> None:
    seen: list[Any] = []
    x = torch.randn(batch, 5, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    plain, hooked = (searched(flag, seen, network).train(training) for flag in (False, True))
    assert plain.kept
    expected, got = plain(x), hooked(x)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert [value.shape for value in seen] == [(batch, 8), (batch, 8)]
    feature = seen[0]
    loss = got.square().sum() + feature.square().mean()
    loss.backward()
    assert len(seen) == 3, "the backward hook ran too"
    assert all(z.grad is not None and z.grad.abs().sum() > 0 for z in hooked.latents.vectors)
    hooked(x).sum().backward()
    assert len(seen) == 6, "once for each pass"


def test_the_hooks_are_where_they_were() -> None:
    hooked = searched(True, [])
    before = {name: list(module._forward_hooks) for name, module in hooked.network.named_modules()}
    hooked(torch.randn(4, 5).double())
    assert {name: list(module._forward_hooks) for name, module in hooked.network.named_modules()} == before
    assert torch._C._len_torch_function_stack() == 0


def test_weights_in_one_memory_are_refused_by_name() -> None:
    """Before the search: a gate on each would act on the memory twice."""
    model = SameData()
    graph = mp.trace(model, (torch.randn(2, 4),))
    with pytest.raises(mp.MetapruneError, match=r"b.weight and a.weight lie in one memory"):
        mp.DHP().generate(model, graph)
