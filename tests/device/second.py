"""A second device on any machine: its tensors lie in the CPU's memory and refuse whatever a GPU refuses.

`install()` once, before anything is put on the device "second"; there is no way back, so use a process of its own.
Refused are: tensors of the CPU beside its own (but for scalars, copies, and positions in square brackets), generators
of the CPU, NumPy's view of its memory, and, as on Apple's GPUs, float64. It stands on PyTorch's hooks for devices that
are written in Python (PyTorch 2.9 and newer).

A module that moves there gets new parameters, as on devices other than CUDA: whoever holds the old ones holds something
that nobody trains.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

_unneeded = sys.modules.setdefault("torchmetrics", ModuleType("torchmetrics"))
from lightning_fabric.accelerators import ACCELERATOR_REGISTRY, Accelerator  # noqa: E402  (it wants the version alone)

if not hasattr(_unneeded, "__path__"):  # all of it takes two seconds, and brings transformers
    del sys.modules["torchmetrics"]

__all__ = ["DEVICE", "OnSecond", "Second", "install"]

DEVICE = torch.device("cpu")
"""What `install` puts in its place: the second device."""

_NAME = "second"

_BETWEEN = frozenset({"aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::set_", "aten::_local_scalar_dense"})
"""What moves values between devices."""

_POSITIONS = frozenset({"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"})
"""Square brackets, whose positions may lie on the CPU."""

_kept: list[Any] = []  # a library of PyTorch's undoes what it registered when it goes


class Second(Tensor):
    """A tensor on the second device.

    Attributes:
        here: Where its values lie: a tensor of the CPU, of the same layout.
    """

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Second:
        with torch.inference_mode(False):  # a view of what is no inference tensor is none
            made: Second = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=torch.device(_NAME, 0)
            )
        made.here = here
        return made

    @property
    def data(self) -> Any:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Second):
            raise RuntimeError("incompatible tensor type: it stays on its device")
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.here = value.here

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    def tolist(self) -> Any:
        return self.here.detach().tolist()

    def __repr__(self, *_: Any, **__: Any) -> str:  # type: ignore[override]
        return f"Second({self.here.detach()!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied: Any = Second(self.here.detach().clone())
            if isinstance(self, nn.Parameter):
                copied = nn.Parameter(copied)
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {_NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any) -> np.ndarray[Any, Any]:
        return self.numpy()  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operator, *args, **(kwargs or {}))


def _run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """An operator on the second device, or its refusal."""
    name = operator._schema.name
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = [tensor for tensor in given if isinstance(tensor, Second)]
    allowed = args[1] if name in _POSITIONS else ()
    foreign = [t for t in given if not isinstance(t, Second) and t.dim() and not any(t is one for one in allowed)]
    if ours and foreign and name not in _BETWEEN:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {_NAME}:0 and "
            f"{foreign[0].device}! ({name})"
        )
    to = kwargs.pop("device", None)
    stays = ours if to is None else torch.device(to).type == _NAME
    if stays and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"Expected a '{_NAME}' device type for generator but found 'cpu' ({name})")
    plain, named = pytree.tree_map_only(Second, lambda tensor: tensor.here, (args, kwargs))
    result = operator(*plain, **(named if to is None else named | {"device": "cpu"}))
    if not stays:
        return result
    known = {id(tensor.here): tensor for tensor in ours}  # an operator in place gives back what it was given
    return pytree.tree_map_only(Tensor, lambda t: known.get(id(t)) if id(t) in known else _entered(t, name), result)


def _entered(here: Tensor, name: str) -> Second:
    if here.dtype in (torch.float64, torch.complex128):
        raise TypeError(f"the second device has no {here.dtype}: compute on the CPU, or in float32 ({name})")
    return Second(here)


class _Module(_DummyBackendModule):
    """What `torch.second` says of the device.

    Attributes:
        seed: What its random numbers were seeded with last. They are drawn from the CPU's all the same, so that results
            can be compared.
    """

    seed = 0

    def manual_seed_all(self, seed: int) -> None:
        self.seed = seed

    def get_rng_state(self, index: int = 0) -> Tensor:
        return torch.tensor([self.seed])

    def set_rng_state(self, state: Tensor, index: int = 0) -> None:
        self.seed = int(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


MODULE = _Module()


class OnSecond(Accelerator):
    """What Lightning Fabric asks of a device."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(_NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return _NAME

    @classmethod
    def register_accelerators(cls, registry: Any) -> None: ...


def _move(module: nn.Module, function: Any, recurse: bool = True) -> nn.Module:
    """In place of `nn.Module._apply`: whatever moves is a new tensor afterwards, and tied ones stay tied."""
    made: dict[int, Any] = {}

    def moved(tensor: Tensor) -> Any:
        if id(tensor) not in made:
            with torch.no_grad():
                result = function(tensor)
                gradient = None if tensor.grad is None else function(tensor.grad)
            if result is not tensor and isinstance(tensor, nn.Parameter):
                result = nn.Parameter(result, tensor.requires_grad)
                result.grad = gradient
            made[id(tensor)] = result
        return made[id(tensor)]

    for child in module.modules() if recurse else [module]:
        for held in (child._parameters, child._buffers):
            held.update({name: tensor if tensor is None else moved(tensor) for name, tensor in held.items()})
    return module


def install() -> torch.device:
    """Make the device known to PyTorch and to Lightning Fabric, for the rest of this process."""
    global DEVICE
    _setup_privateuseone_for_python_backend(_NAME, MODULE)
    library = torch.library.Library("_", "IMPL")
    library.fallback(_run, "PrivateUse1")
    _kept.append(library)
    torch.accelerator.synchronize = lambda *_: None  # it has no streams
    nn.Module._apply = _move  # type: ignore[method-assign]
    ACCELERATOR_REGISTRY.register(_NAME, OnSecond, description="a second device on the CPU")
    DEVICE = torch.device(_NAME, 0)
    return DEVICE
