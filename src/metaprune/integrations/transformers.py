"""Networks of the library transformers: the ways in which `generate` calls them, and how they are written.

`generate` calls a network in other ways than its users do: once on the prompt, which fills a cache, then token by token
with that cache, and where there is an encoder, with what the encoder gave.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from metaprune.graph.calling import Call
from metaprune.graph.errors import TraceError
from metaprune.graph.quiet import quiet
from metaprune.graph.reach import reached
from metaprune.graph.rehearsal import rehearsal
from metaprune.pretrained.folder import from_pretrained, save_pretrained
from metaprune.pretrained.sayable import configuration_limits

__all__ = [
    "SearchCallback",
    "can_generate",
    "configuration_limits",
    "from_pretrained",
    "generation_calls",
    "save_pretrained",
]

if TYPE_CHECKING:
    from metaprune.integrations.trainer import SearchCallback as SearchCallback

_NOT_FOR_GENERATE = ("labels", "use_cache", "return_dict", "past_key_values", "encoder_outputs")


def __getattr__(name: str) -> Any:
    if name != "SearchCallback":  # which needs the library, as nothing else here does
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("metaprune.integrations.trainer").SearchCallback


def can_generate(model: nn.Module) -> bool:
    """Whether a network has transformers' `generate`."""
    asked = getattr(model, "can_generate", None)
    return callable(asked) and bool(asked())


def generation_calls(
    model: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, steps: int = 2
) -> tuple[Call, ...]:
    """The calls that `model.generate` makes of the network: on the prompt, and on the next token with a filled cache.

    They are found by letting it generate a few tokens. Give them to `mp.trace` or `mp.prune`, so that a cut network
    generates with its cache what it generates without:

        >>> mp.trace(model, (), inputs, calls=generation_calls(model, (), inputs))  # doctest: +SKIP

    Args:
        model: A causal or encoder-decoder network of transformers; left untouched.
        args: Example inputs; the first is the prompt, where the prompt is not among `kwargs`.
        kwargs: Example inputs by name, as `input_ids` or `input_features`; what only training takes is left out.
        steps: How many calls: two are the prompt and the first token after it.

    Raises:
        TraceError: It does not generate, or not from these inputs.
    """
    if not can_generate(model):
        raise TraceError(f"generation_calls: {type(model).__name__} does not generate; it has no calls but its forward")
    given = {name: value for name, value in (kwargs or {}).items() if name not in _NOT_FOR_GENERATE}
    calls: list[Call] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if len(calls) < steps:
            inputs, named = copy.deepcopy((inputs, named))
            states = tuple(name for name, value in named.items() if name not in given and _is_computed(value))
            calls.append(Call(inputs, named, states=states))

    try:
        with rehearsal(model, training=False) as actor, quiet(), torch.no_grad():
            actor.register_forward_pre_hook(note, with_kwargs=True)
            generate: Any = actor.generate
            settings = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False, "num_beams": 1}
            generate(*copy.deepcopy(args[:1]), **copy.deepcopy(given), **settings, pad_token_id=0, use_cache=True)
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise TraceError(
            f"generation_calls: {type(model).__name__} does not generate from these inputs "
            f"({type(error).__name__}: {reason}); give what model.generate(...) takes"
        ) from error
    return tuple(calls)


def _is_computed(value: Any) -> bool:
    """Whether an input holds what a network computed: numbers with fractions, not tokens, positions or masks."""
    return any(tensor.is_floating_point() for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    return (found for found in reached(value) if isinstance(found, Tensor))
