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

QUICK = ("Llama", "T5")


def generated(model: Any, inputs: dict[str, Any], cache: bool) -> list[list[int]]:
    return model.generate(
        **inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0, use_cache=cache
    ).tolist()


def plan(name: str, graph: mp.ChannelGraph, seed: int) -> mp.Plan:
    """Random widths; for grouped products, which take no others, multiples of eight."""
    if "num_experts_per_tok" not in NETWORKS[name][1]:
        return oracle.ragged(graph, seed)
    drawn = torch.Generator().manual_seed(seed)

    def width(size: int) -> int:
        step = 8 if size % 8 == 0 else 1
        return step * int(torch.randint(1, size // step + 1, (), generator=drawn))

    return oracle.random_plan(graph, drawn, width)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_a_cut_network_generates_alike_with_and_without_its_cache(name: str) -> None:
    model, inputs = example(name)
    graph = mp.trace(model, (), inputs, calls=generation_calls(model, (), inputs))
    assert len(graph.free) > 3, f"trunk, heads, their sizes, hidden units\n{graph}"
    for seed in range(1 if name in QUICK else 3):
        cut = carve(model, graph, plan(name, graph, seed))
        assert not cut.undone
        assert generated(cut.model, inputs, True) == generated(cut.model, inputs, False)


def test_the_calls_are_those_of_generate() -> None:
    model, inputs = example("Llama")
    prompt, step = generation_calls(model, (), inputs)
    assert prompt.kwargs["input_ids"].shape == (2, 6)
    assert step.kwargs["input_ids"].shape == (2, 1)
    assert step.states == ("past_key_values",)
    assert step.kwargs["past_key_values"].get_seq_length() == 6
    assert generation_calls(model, (inputs["input_ids"],))[1].kwargs["input_ids"].shape == (2, 1)


def test_what_an_encoder_gave_is_a_state() -> None:
    model, inputs = example("T5")
    prompt, step = generation_calls(model, (), inputs)
    assert prompt.states == ("encoder_outputs", "past_key_values")
    assert step.states == ("encoder_outputs", "past_key_values")


def test_what_does_not_generate_is_refused() -> None:
    assert not can_generate(nn.Linear(2, 2))
    with pytest.raises(mp.MetapruneError, match="does not generate"):
        generation_calls(nn.Linear(2, 2), (torch.zeros(2, 2),))
    model, _ = example("Llama")
    with pytest.raises(mp.MetapruneError, match="does not generate from these inputs"):
        generation_calls(model, (), {"pictures": torch.zeros(2, 2)})


def test_it_is_found_under_the_package() -> None:
    assert mp.integrations.transformers.generation_calls is generation_calls
