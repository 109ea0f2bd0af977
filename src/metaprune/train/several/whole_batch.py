"""What looks across the examples of a batch looks across all of it, wherever its rows are.

A step on several processes runs inside `Across`. It acts on what is called, not on modules, because searches call
networks as functions of weights that they make, and as programs of operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from metaprune.train.processes import Group

__all__ = ["Across"]


class Across(TorchFunctionMode):
    """Batch norms that train take their statistics from the rows of all processes; dropout draws for all rows alike.

    Without it processes would normalise by their own rows, and drop the same entries of theirs.

    Attributes:
        group: The processes.
        weight: Of this one's rows; with 0 they are others', and do not count.
    """

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group
        self.weight = 1.0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """A call of PyTorch's."""
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return self._functional(*args, **kwargs)
        if func in (torch.batch_norm, torch.ops.aten.batch_norm.default):
            return self._operator(*args, **kwargs)
        if func in DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _functional(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        return self._operator(input, weight, bias, running_mean, running_var, training, momentum, eps)

    def _operator(
        self,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        cudnn: bool = True,
    ) -> Tensor:
        if not training:
            return torch.batch_norm(
                input, weight, bias, running_mean, running_var, False, momentum, eps, torch.backends.cudnn.enabled
            )
        mean, var, number = self._statistics(input.detach())
        if number.device.type == "cpu" and float(number) <= 1:  # elsewhere a look would wait for the device
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((var * (number / (number - 1))).to(running_var), momentum)
        normed: Tensor = _Normalise.apply(input, weight, bias, mean, var, number, eps, self)  # type: ignore[no-untyped-call]
        return normed

    def _statistics(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means and variances of the channels over all rows, and how many values each is over."""
        wide = input if input.dtype == torch.float64 else input.float()
        var, mean = torch.var_mean(wide, _across(input), correction=0)
        number = mean.new_tensor([input.numel() / input.shape[1] if self.weight else 0.0])
        every = self.group.rows(torch.cat([mean, var, number]))
        means, variances, numbers = every[:, : len(mean)], every[:, len(mean) : -1], every[:, -1:]
        total = numbers.sum()
        middle = (numbers * means).sum(0) / total
        return middle, (numbers * (variances + (means - middle).square())).sum(0) / total, total

    def _dropout(self, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As if each process dropped from as many rows as all have together, and used its own of them."""
        if not input.dim() or input.shape[0] == 0:
            return func(input, *args, **kwargs)
        probe = torch.ones((self.group.size * input.shape[0], *input.shape[1:]), dtype=input.dtype, device=input.device)
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
        first = self.group.rank * input.shape[0]
        return input * func(probe, *args[:2], **kwargs)[first : first + input.shape[0]]


DROPOUTS = (
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    torch.dropout,
    torch.feature_dropout,
    torch.ops.aten.dropout.default,
    torch.ops.aten.feature_dropout.default,
)
"""Those that are a product with what they draw."""


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps), scaled and shifted, where mean and var are of rows that others have, too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        number: Tensor,
        eps: float,
        across: Across,
    ) -> Tensor:
        """Elementwise."""
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), number)
        ctx.group, ctx.counts = across.group, across.weight > 0
        ctx.has_bias = bias is not None
        return torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, torch.backends.cudnn.enabled)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Mean and variance answer for the rows of all."""
        x, weight, mean, scale, number = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.dim() - 2))
        dims = _across(x)
        normed = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        wide = grad.to(mean.dtype)
        own = torch.stack([wide.sum(dims), (wide * normed).sum(dims)])
        every = ctx.group.total(own) / number
        slope = scale if weight is None else scale * weight.to(mean.dtype)
        given = slope.view(shape) * wide
        if ctx.counts:  # rows that are others' moved no statistics
            given = given - slope.view(shape) * (every[0].view(shape) + normed * every[1].view(shape))
        to_weight = None if weight is None else own[1].to(weight.dtype)
        to_bias = own[0].to(mean.dtype if weight is None else weight.dtype) if ctx.has_bias else None
        return given.to(x.dtype), to_weight, to_bias, None, None, None, None, None


def _across(x: Tensor) -> list[int]:
    """All dimensions but that of the channels."""
    return [0, *range(2, x.dim())]
