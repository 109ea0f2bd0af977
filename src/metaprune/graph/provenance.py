"""Where the numbers come from that code gives to operators: an attribute of a module, the size of a tensor, a literal.

While a network is exported, its whole-number attributes and the sizes of its tensors are `Tagged`: whole numbers that
remember what they were computed from. A `Recorder` writes down which of them reach which operator.
"""

from __future__ import annotations

import builtins
import math
import operator
import re
import sys
import sysconfig
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from metaprune.graph.attributes import Slot, slots
from metaprune.graph.caches import nothing_remembered
from metaprune.graph.tensors import named_tensors
from metaprune.graph.term import Term

__all__ = [
    "Attribute",
    "Combined",
    "Comparison",
    "Extent",
    "Number",
    "Record",
    "Recorder",
    "call_of",
    "caller",
    "calls_by_place",
    "compare",
    "evaluate",
    "is_network",
    "is_recorded",
    "leaves",
    "package",
    "packages_of",
    "place",
    "recording",
]


@dataclass(frozen=True)
class Attribute:
    """A number that a module holds: `num_heads`, `split_sizes.1`, `config.hidden_size`."""

    path: str
    name: str


@dataclass(frozen=True)
class Extent:
    """The size of a dimension of a tensor.

    Attributes:
        source: The recorded call that made the tensor, or its name; the empty name for an input.
        output: Which of the results of the call it is.
        dim: The dimension.
        size: How large it is.
        term: What it is made of, once that is known.
    """

    source: int | str
    output: int
    dim: int
    size: int
    term: Term | None = None


@dataclass(frozen=True)
class Combined:
    """Two numbers put together by one of `+ - * // %`."""

    sign: str
    left: Number
    right: Number


Number = Attribute | Extent | Combined | int
"""An expression over attributes, sizes and literals."""

_SIGNS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}


def evaluate(number: Number, value: Callable[[Attribute | Extent], int]) -> int:
    """The value of an expression, given the values of its leaves.

    Raises:
        ZeroDivisionError: It divides by what is zero at these values.
    """
    if isinstance(number, Combined):
        return _SIGNS[number.sign](evaluate(number.left, value), evaluate(number.right, value))
    return number if isinstance(number, int) else value(number)


def leaves(number: Number) -> Iterator[Attribute | Extent]:
    """The attributes and sizes in an expression, left to right."""
    if isinstance(number, Combined):
        yield from leaves(number.left)
        yield from leaves(number.right)
    elif not isinstance(number, int):
        yield number


class Tagged(int):
    """A whole number that remembers where it comes from.

    Attributes:
        number: What it was computed from.
        records: Where comparisons of it are written down; nowhere where there is none.
    """

    number: Number
    records: list[Record] | None

    def __new__(cls, value: int, number: Number, records: list[Record] | None = None) -> Tagged:
        tagged = super().__new__(cls, value)
        tagged.number = number
        tagged.records = records
        return tagged

    def __neg__(self) -> Tagged:
        return Tagged(-int(self), Combined("-", 0, self.number), self.records)

    def __bool__(self) -> bool:
        self.compared("!=", 0)
        return int(self) != 0

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)

    def compared(self, sign: str, other: int) -> None:
        """Write down that the code of the network, or a function of PyTorch's that it calls, compares it."""
        code = sys._getframe(2).f_code
        if self.records is not None and (is_network(code) or code.co_filename.startswith(_MODULES)):
            where = f"{code.co_filename}:{sys._getframe(2).f_lineno}"
            self.records.append(Comparison(where, (self, other), sign))


def _combining(sign: str, reflected: bool) -> Callable[[Tagged, Any], Any]:
    def method(self: Tagged, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        ours, theirs = self.number, other.number if isinstance(other, Tagged) else int(other)
        left, right = (int(other), int(self)) if reflected else (int(self), int(other))
        number = Combined(sign, theirs, ours) if reflected else Combined(sign, ours, theirs)
        return Tagged(_SIGNS[sign](left, right), number, self.records)

    return method


def _comparing(sign: str) -> Callable[[Tagged, Any], Any]:
    def method(self: Tagged, other: Any) -> Any:
        if not isinstance(other, int):
            return getattr(int(self), _COMPARISONS[sign])(other)
        self.compared(sign, other)
        return compare(sign, int(self), int(other))

    return method


_COMPARISONS = {"==": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}


def compare(sign: str, left: int, right: int) -> bool:
    """The outcome of a comparison."""
    return bool(getattr(left, _COMPARISONS[sign])(right))


for _sign, _name in _COMPARISONS.items():
    setattr(Tagged, _name, _comparing(_sign))
Tagged.__hash__ = int.__hash__  # type: ignore[method-assign]
for _sign, _name in (("+", "add"), ("-", "sub"), ("*", "mul"), ("//", "floordiv"), ("%", "mod")):
    setattr(Tagged, f"__{_name}__", _combining(_sign, False))
    setattr(Tagged, f"__r{_name}__", _combining(_sign, True))


@dataclass(frozen=True)
class Record:
    """One call of a function of PyTorch's, as the network's code made it.

    Attributes:
        where: File and line of the innermost code that is not PyTorch's.
        numbers: The whole numbers among its arguments, in order.
    """

    where: str
    numbers: tuple[int, ...]

    def number(self, value: int, place: int, others: Sequence[int]) -> Number | None:
        """Where the number comes from that stands at `place` among the numbers `others` of one of its operators.

        None where that cannot be told.
        """
        found = {_number(given) for given in self.numbers if given == value}
        if len(found) == 1:
            return found.pop()
        if list(map(int, self.numbers)) == list(others):
            return _number(self.numbers[place])
        return None


@dataclass(frozen=True)
class Comparison(Record):
    """A comparison of two numbers, one of them with a known source, in the network's code: it may take another way."""

    sign: str

    @property
    def sides(self) -> tuple[Number, Number]:
        """What both were computed from."""
        left, right = self.numbers
        return _number(left), _number(right)


def _number(given: int) -> Number:
    return given.number if isinstance(given, Tagged) else int(given)


_CALL = re.compile(r'File "<call (?P<index>\d+)>"')
_TORCH = str(Path(torch.__file__).parent)
_OURS = tuple(str(part) for part in Path(__file__).parents[1].iterdir() if part.name != "models")
_MACHINERY = (_TORCH, *_OURS)
_PYTHON, _INSTALLED = sysconfig.get_path("stdlib"), ("site-packages", "dist-packages")
_GENERATED = ("<call ", "<eval_with_key>", "<frozen ")
_MODULES = str(Path(torch.__file__).parent / "nn")
_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]


_COUNTS = (torch.Tensor.numel, torch.Tensor.nelement, torch.numel)
_SUSPECT: dict[Any, str] = {
    torch.autograd.grad: "autograd.grad(",
    torch.autograd.backward: ".backward(",
    torch.Tensor.backward: ".backward(",
    torch.Tensor.data.__set__: ".data = ",  # type: ignore[attr-defined]
}
"""What an export does not follow, and does not say the line of."""


def _opened(function: Any) -> Any:
    """The same function of PyTorch's, which does not ask whether somebody wants to be told of the call."""
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    opened = types.FunctionType(function.__code__, names, argdefs=function.__defaults__)
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


_OPEN = {F.multi_head_attention_forward: _opened(F.multi_head_attention_forward)}
"""Functions that compute and compare sizes as the code of a network does: what they call is written down, not they."""

_GLOBALS: dict[str, Any] = {"__builtins__": builtins}


def _call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return function(*args, **kwargs)


def call_of(stack_trace: str | None) -> int | None:
    """The number of the recorded call that a node of the program was made in."""
    found = _CALL.search(stack_trace or "")
    return int(found["index"]) if found else None


def calls_by_place(records: Sequence[Record]) -> dict[int, tuple[str, int]]:
    """The number of each recorded call -> where it was made, and how many were made there before it."""
    made: Counter[str] = Counter()
    found: dict[int, tuple[str, int]] = {}
    for index, record in enumerate(records):
        if not isinstance(record, Comparison):  # of numbers, which no function of PyTorch's is called for
            found[index] = record.where, made[record.where]
            made[record.where] += 1
    return found


class Recorder(TorchFunctionMode):
    """Writes down every call of a function of PyTorch's, and tags the sizes of tensors.

    Each call is made from a frame of its own name, which PyTorch writes into the stack trace of the nodes it makes:
    that is how nodes find their call.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.records: list[Record] = []
        self.floats = {value for module in model.modules() for value in vars(module).values() if type(value) is float}
        self.made: dict[int, tuple[Any, int | str, int]] = {}
        self.records_now = False
        self.suspects: list[tuple[str, str]] = []
        self.packages = packages_of(model)

    def begin(self) -> None:
        """The network's code begins to run."""
        self.__enter__()  # type: ignore[no-untyped-call]
        self.records_now = True

    def end(self) -> None:
        """It has run, or failed."""
        if self.records_now:
            self.records_now = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (func == _SHAPE or func is torch.Tensor.size) and _by_a_network():
            return self.sizes(args[0], func(*args, **kwargs), *args[1:], **kwargs)
        if func in _COUNTS and _by_a_network():
            return math.prod(self.sizes(args[0], args[0].shape), start=1)
        if getattr(func, "__name__", "") == "__get__":
            return func(*args, **kwargs)
        if func in _OPEN:
            with self:
                return _OPEN[func](*args, **kwargs)
        if func in _SUSPECT:
            self.suspects.append((caller(self.packages), _SUSPECT[func]))
        numbers = tuple(_whole((args, kwargs)))
        index = len(self.records)
        self.records.append(Record(caller(self.packages), numbers))
        if any(isinstance(number, Tagged) for number in numbers):
            args, kwargs = _plain(args), _plain(kwargs)
        code = _call.__code__.replace(co_filename=f"<call {index}>", co_name="forward")
        result = types.FunctionType(code, _GLOBALS)(func, args, kwargs)
        outputs = [result] if isinstance(result, Tensor) else result if isinstance(result, list | tuple) else []
        for output, tensor in enumerate(outputs):
            if isinstance(tensor, Tensor):
                self.made[id(tensor)] = tensor, index, output
        return result

    def tagged(self, path: str, name: str, value: int) -> Tagged:
        """A number that a module holds, tagged."""
        return Tagged(value, Attribute(path, name), self.records)

    def sizes(self, tensor: Tensor, plain: Any, dim: int | None = None) -> Any:
        """The shape, or one size, of a tensor, tagged."""
        _, source, output = self.made.get(id(tensor)) or self.named(tensor)
        if isinstance(plain, int):
            return Tagged(plain, Extent(source, output, int(dim or 0) % tensor.ndim, plain), self.records)
        return torch.Size([Tagged(size, Extent(source, output, i, size), self.records) for i, size in enumerate(plain)])

    def named(self, tensor: Tensor) -> tuple[Any, int | str, int]:
        """A parameter or buffer by its name; the empty name for an input."""
        for name, known in named_tensors(self.model).items():
            self.made.setdefault(id(known), (known, name, 0))
        return self.made.setdefault(id(tensor), (tensor, "", 0))


def _whole(value: Any) -> Iterator[int]:
    """The whole numbers among arguments, in order."""
    if isinstance(value, Tensor | bool | str | float | None):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _whole(entry)
    elif isinstance(value, dict):
        yield from _whole(tuple(value.values()))
    elif isinstance(value, slice):
        yield from _whole((value.start, value.stop, value.step))


def _plain(value: Any) -> Any:
    """The same arguments with the numbers untagged."""
    if isinstance(value, Tagged):
        return int(value)
    if type(value) in (list, tuple):
        return type(value)([_plain(entry) for entry in value])
    if isinstance(value, torch.Size):
        return torch.Size([_plain(size) for size in value])
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, slice):
        return slice(_plain(value.start), _plain(value.stop), _plain(value.step))
    return value


def is_network(code: types.CodeType) -> bool:
    """Whether code is a network's: neither PyTorch's or Python's, nor generated, nor that which traces and cuts it."""
    file = code.co_filename
    if file.startswith(_MACHINERY) or file.startswith(_GENERATED):
        return False
    if file == "<string>":  # named tuples and dataclasses are made of such
        return code.co_name != "<lambda>" and not code.co_qualname.startswith("__create_fn__")
    return not file.startswith(_PYTHON) or any(folder in file for folder in _INSTALLED)


def place(code: types.CodeType, line: int) -> str:
    """File and line of code; the function's name where it comes from no file."""
    return f"{code.co_qualname if code.co_filename.startswith('<') else code.co_filename}:{line}"


def is_recorded(func: Any) -> bool:
    """Whether a recorder writes a call of this function down; sizes asked for, and attributes, are not."""
    if func in (torch.Tensor.size, *_COUNTS):
        return not _by_a_network()
    return getattr(func, "__name__", "") != "__get__"


def _by_a_network() -> bool:
    """Whether the code that calls is a network's, or a module's of PyTorch's; its machinery wants plain numbers."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name == "__torch_function__":
        frame = frame.f_back
    name = frame.f_code.co_filename if frame is not None else _TORCH
    return not name.startswith(_TORCH) or name.startswith(_MODULES)


def package(module: str) -> str:
    """The package that a Python module lies in."""
    return module.partition(".")[0]


def packages_of(model: nn.Module) -> Set[str]:
    """The packages that the modules of a network are of, but for PyTorch."""
    return frozenset(package(type(module).__module__) for module in model.modules()) - {"torch"}


def caller(packages: Set[str] = frozenset()) -> str:
    """File and line of the innermost frame that is a network's; where all is PyTorch's, the module that runs.

    Args:
        packages: Those that its modules are of: libraries that they call are their code only where they are of none.
    """
    frame: types.FrameType | None = sys._getframe(2)
    module = helper = None
    while frame is not None and not frame.f_code.co_filename.startswith(_OURS):
        if is_network(frame.f_code):
            if not packages or package(frame.f_globals.get("__name__", "")) in packages:
                return place(frame.f_code, frame.f_lineno)
            helper = helper or place(frame.f_code, frame.f_lineno)
        if module is None and frame.f_code.co_name == "forward" and isinstance(frame.f_locals.get("self"), nn.Module):
            module = type(frame.f_locals["self"]).__qualname__
        frame = frame.f_back
    return helper or f"{module or 'the network'}.forward"


@contextmanager
def recording(model: nn.Module) -> Iterator[Recorder]:
    """Tag the numbers that `model` holds and record the calls its code makes; afterwards it holds what it held."""
    recorder = Recorder(model)
    tags: list[tuple[Slot, bool, Any]] = []
    try:
        for slot in list(slots(model)):
            tag = slot.map(partial(recorder.tagged, slot.path))
            tags.append((slot, slot.key in slot.place, tag))
            slot.place[slot.key] = tag
        begins = model.register_forward_pre_hook(lambda *_: recorder.begin())
        ends = model.register_forward_hook(lambda *_: recorder.end())
        try:
            with nothing_remembered(Tagged):
                yield recorder
        finally:
            recorder.end()  # a forward pass that fails comes to no hook
            begins.remove()
            ends.remove()
    finally:
        for slot, own, tag in tags:
            if slot.place.get(slot.key) is tag:
                if own:
                    slot.place[slot.key] = slot.value
                else:
                    del slot.place[slot.key]
        for slot in list(slots(model)):  # what the forward pass itself wrote down
            if slot.key in slot.place:
                slot.place[slot.key] = slot.map(lambda _, value: int(value))
