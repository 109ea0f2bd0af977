"""What `generate` computes with its cache is what it computes without, on cut networks too."""

from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.integrations.transformers import can_generate, generation_calls
from metaprune.surgery.slice import carve
from tests.integrations.generating import NETWORKS, example
from tests.laws import oracle

QUICK: tuple[tuple[str, dict[str, Any]], ...] = (("Llama", {"num_hidden_layers": 1}), ("T5", {"num_layers": 1}))
"""One layer of each kind, that of the decoder with two caches; the slow tests have two layers."""
SLOW = tuple((name, {}) for name in NETWORKS)


def generated(model: Any, inputs: dict[str, Any], cache: bool) -> tuple[list[list[int]], torch.Tensor]:
    """Six tokens, and the logits that each was the largest of: tokens may be alike where those are not."""
    said = {"return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}
    found = model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False, use_cache=cache, **said)
    return found.sequences.tolist(), torch.stack(found.logits)


def plan(name: str, graph: mp.ChannelGraph, seed: int) -> mp.Plan:
    """Random widths; for grouped products, which take no others, multiples of eight."""
    if "num_experts_per_tok" not in NETWORKS[name][1]:
        return oracle.ragged(graph, seed)
    drawn = torch.Generator().manual_seed(seed)

    def width(size: int) -> int:
        step = 8 if size % 8 == 0 else 1
        return step * int(torch.randint(1, size // step + 1, (), generator=drawn))

    return oracle.random_plan(graph, drawn, width)


@pytest.mark.parametrize(
    ("name", "changes"),
    [*QUICK, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)],
    ids=str,
)
def test_a_cut_network_generates_alike_with_and_without_its_cache(name: str, changes: dict[str, Any]) -> None:
    model, inputs = example(name, **changes)
    graph = mp.trace(model, (), inputs, calls=generation_calls(model, (), inputs))
    assert len(graph.free) > 3, f"trunk, heads, their sizes, hidden units\n{graph}"
    for seed in range(1 if (name, changes) in QUICK else 3):
        cut = carve(model, graph, plan(name, graph, seed))
        assert not cut.undone
        (tokens, logits), (same, known) = (generated(cut.model, inputs, cache) for cache in (True, False))
        assert tokens == same
        assert oracle.distance(known, logits) < 1e-4  # norms are of float32
        assert oracle.distance(known[:-1], known[1:]) > 1e-2  # each token is another question


def test_the_calls_are_those_of_generate() -> None:
    model, inputs = example("Llama")
    prompt, step = generation_calls(model, (), inputs)
    assert prompt.kwargs["input_ids"].shape == (2, 6)
    assert step.kwargs["input_ids"].shape == (2, 1)
    assert step.states == ("past_key_values",)
    assert step.kwargs["past_key_values"].get_seq_length() == 6
    more = generation_calls(model, (), inputs, steps=3)
    assert [call.kwargs["input_ids"].shape[1] for call in more] == [6, 1, 1]
    assert generation_calls(model, (inputs["input_ids"],))[1].kwargs["input_ids"].shape == (2, 1)


def test_what_an_encoder_gave_is_a_state() -> None:
    model, inputs = example("T5")
    prompt, step = generation_calls(model, (), inputs)
    assert prompt.states == ("encoder_outputs",)
    assert set(step.states) == {"encoder_outputs", "past_key_values"}


def test_what_does_not_generate_is_refused() -> None:
    assert not can_generate(nn.Linear(2, 2))
    with pytest.raises(mp.MetapruneError, match="does not generate"):
        generation_calls(nn.Linear(2, 2), (torch.zeros(2, 2),))
    model, _ = example("Llama")
    with pytest.raises(mp.MetapruneError, match="does not generate from these inputs"):
        generation_calls(model, (), {"pictures": torch.zeros(2, 2)})


def test_it_is_found_under_the_package() -> None:
    assert mp.integrations.transformers.generation_calls is generation_calls
