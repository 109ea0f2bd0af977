"""The task of foretelling the next token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metaprune.graph.arguments import is_whole
from metaprune.train.task import (
    Arguments,
    Batch,
    Loader,
    Metric,
    Task,
    TaskError,
    check_temperature,
    kind_of,
    soft_divergence,
    spoiled,
)

__all__ = ["LanguageModelling"]


def LanguageModelling(
    train: Loader,
    val: Loader,
    test: Loader | None = None,
    *,
    ignore: int = -100,
    temperature: float = 1.0,
    metric: Metric | None = None,
    metric_name: str = "",
) -> Task:
    """The task of foretelling the next token: cross-entropy, and perplexity over all tokens of the set.

    Batches are tokens, whole numbers (N, T), as `metaprune.data.load_text` makes them; or dictionaries as Hugging
    Face's collators make them, with `input_ids`, and perhaps `attention_mask` and `labels`, of which the labels are not
    given to the network. Its output is (N, T, vocabulary) logits, or an object or a dictionary that has them as
    `logits`. The logits at each place are held against the token after it.

    Args:
        train: Batches to learn from.
        val: Batches to choose by, held out of the training text.
        test: Batches to report.
        ignore: What stands in labels where nothing is to be learned or measured; padding by the mask never is.
        temperature: How soft a teacher's answers are made where one is imitated (`distil`).
        metric: In place of perplexity, as `Task.metric`; it is given logits (N, T - 1, vocabulary) and tokens.
        metric_name: Of that one.

    Raises:
        TaskError: Numbers out of range.
    """
    from torchmetrics.text import Perplexity

    if not is_whole(ignore):
        raise TaskError(f"language modelling: expected ignore as a whole number, got {ignore!r}")
    check_temperature(temperature, "language modelling")
    return Task(
        train,
        val,
        test,
        loss=partial(_cross_entropy, ignore=ignore),
        metric=Perplexity(ignore_index=ignore) if metric is None else metric,
        metric_name="perplexity" if metric is None else metric_name,
        higher_is_better=bool(getattr(metric, "higher_is_better", True)) if metric is not None else False,
        inputs=_inputs,
        judged=partial(_following, ignore=ignore),
        distance=partial(_apart, temperature=temperature),
    )


def _inputs(batch: Batch) -> Arguments:
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping) and "input_ids" in batch:
        return (), {name: value for name, value in batch.items() if name != "labels"}
    if isinstance(batch, Sequence) and batch and isinstance(batch[0], Tensor):
        return (batch[0],), {}
    raise TaskError(
        f"language modelling: expected batches of tokens (N, T), or dictionaries with input_ids, got {kind_of(batch)}"
    )


def _tokens(batch: Batch, ignore: int) -> Tensor:
    """What is to be foretold, at its own place."""
    if isinstance(batch, Tensor):
        return batch
    tokens: Tensor = batch["input_ids"] if isinstance(batch, Mapping) else batch[0]
    labels, mask = (batch.get(name) if isinstance(batch, Mapping) else None for name in ("labels", "attention_mask"))
    if isinstance(labels, Tensor):
        return labels
    return tokens if mask is None else tokens.masked_fill(mask == 0, ignore)


def _logits(output: Any) -> Tensor:
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits")
    if found is None and isinstance(output, Sequence) and output:
        found = output[0]
    if not isinstance(found, Tensor) or found.dim() != 3:
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise TaskError(
            f"language modelling: expected logits (N, T, vocabulary), or an object that has them as logits, got "
            f"{kind_of(output)}{shape} from the network; wrap it so that it returns them"
        )
    return found


def _following(
    output: Any, batch: Batch, ignore: int, *, look: bool = True
) -> tuple[Float[Tensor, " n t vocabulary"], Int[Tensor, " n t"]]:
    """The logits at each place but the last, and the tokens after them, whose range is looked at (`look`)."""
    logits, tokens = _logits(output), _tokens(batch, ignore)
    if tokens.shape != logits.shape[:2] or tokens.is_floating_point():
        raise TaskError(
            "language modelling: expected whole-number tokens (N, T) and logits (N, T, vocabulary), got tokens of "
            f"shape {tuple(tokens.shape)} and type {tokens.dtype}, and logits of shape {tuple(logits.shape)}"
        )
    if tokens.shape[1] < 2:
        raise TaskError("language modelling: expected sequences of two tokens or more, got one; make them longer")
    after = tokens[:, 1:].long()
    if not look:
        return logits[:, :-1], after
    known = after[after != ignore]
    if known.numel() and (int(known.min()) < 0 or int(known.max()) >= logits.shape[2]):
        odd = int(known.min()) if int(known.min()) < 0 else int(known.max())
        raise TaskError(
            f"language modelling: tokens must be inside [0, {logits.shape[2]}), as the network has outputs, got {odd}; "
            "has it another tokenizer?"
        )
    return logits[:, :-1], after


def _cross_entropy(output: Any, batch: Batch, ignore: int) -> Tensor:
    waits = _logits(output).device.type != "cpu"  # to look at tokens there takes the time of a step
    logits, after = _following(output, batch, ignore, look=not waits)
    if not waits:
        return F.cross_entropy(logits.flatten(0, 1), after.flatten(), ignore_index=ignore)
    wrong = ((after < 0) | (after >= logits.shape[2])) & (after != ignore)
    after = after.masked_fill(wrong, ignore)
    return spoiled(F.cross_entropy(logits.flatten(0, 1), after.flatten(), ignore_index=ignore), wrong)


def _apart(output: Any, answers: Any, temperature: float) -> Tensor:
    """Of each token, as for classes."""
    return soft_divergence(_logits(output).flatten(0, 1), _logits(answers).flatten(0, 1), temperature)
