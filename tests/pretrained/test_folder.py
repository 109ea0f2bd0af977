"""A cut network of transformers is written such that what is loaded computes the same, or nothing is loaded."""

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import metaprune as mp
from metaprune.cost.budget import Allocation
from metaprune.integrations.transformers import configuration_limits, generation_calls
from metaprune.pretrained.folder import ABOUT, INSIDE, PretrainedError, save_pretrained
from metaprune.surgery.slice import Cut, carve
from metaprune.train.atomic import write_json
from tests.integrations.generating import NETWORKS

CAUSAL = {"vocab_size": 61, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
SEEN = CAUSAL | {"intermediate_size": 48, "max_position_embeddings": 20}
PICTURES = {"image_size": 16, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2": ("Qwen2ForCausalLM", NETWORKS["Llama"][1]),
    "Bloom": ("BloomForCausalLM", {"vocab_size": 61, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "Mpt": ("MptForCausalLM", {"vocab_size": 61, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}),
    "Bert": ("BertForSequenceClassification", SEEN),
    "Roberta": ("RobertaForTokenClassification", SEEN),
    "Electra": ("ElectraForSequenceClassification", SEEN | {"embedding_size": 24}),
    "ViT": ("ViTForImageClassification", PICTURES | {"intermediate_size": 40}),
    "Phi": ("PhiForCausalLM", NETWORKS["Llama"][1] | {"partial_rotary_factor": 0.5}),
}
ALL = NETWORKS | OTHERS

QUICK = ("ViT",)  # tests below have others


def network(name: str, **fields: Any) -> tuple[Any, dict[str, Any]]:
    """A network whose weights are not small, with fields of its configuration, and inputs."""
    import transformers

    transformers.logging.set_verbosity_error()
    kind, settings = ALL[name]
    build = getattr(transformers, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(build.config_class(**settings | fields)).eval()
        for parameter in (one for one in model.parameters() if one.requires_grad):  # others are made, not learned
            parameter.data += 0.1 * torch.randn_like(parameter)
        ids = torch.randint(3, 60, (2, 6))
        sounds, pictures = torch.randn(2, 16, 40), torch.randn(2, 3, 16, 16)
    if model.main_input_name == "pixel_values":
        return model, {"pixel_values": pictures}
    if model.main_input_name == "input_features":
        return model, {"input_features": sounds, "decoder_input_ids": ids}
    if getattr(model.config, "is_encoder_decoder", False):
        return model, {"input_ids": ids, "decoder_input_ids": ids[:, :3]}
    return model, {"input_ids": ids}


def halves(graph: mp.ChannelGraph) -> mp.Plan:
    """Half of the channels of each axis, drawn once for all axes of one size: equal blocks stay equal."""
    drawn = torch.Generator().manual_seed(0)
    orders = {size: torch.randperm(size, generator=drawn) for size in {a.size for a in graph.free.values()}}
    return mp.Plan({name: sorted(orders[a.size][: (a.size + 1) // 2].tolist()) for name, a in graph.free.items()})


def cut(
    name: str, plan: Callable[[mp.ChannelGraph], mp.Plan] = halves, **fields: Any
) -> tuple[Any, Cut, mp.ChannelGraph, dict[str, Any]]:
    """The cut network, how it was cut, the graph of the dense one, and inputs."""
    model, inputs = network(name, **fields)
    graph = mp.trace(model, (), inputs | ({"use_cache": False} if getattr(model.config, "use_cache", False) else {}))
    done = carve(model, graph, plan(graph))
    return done.model, done, graph, inputs


@torch.no_grad()
def same(one: Any, other: Any, inputs: dict[str, Any]) -> None:
    expected, got = one(**inputs)[0], other(**inputs)[0]
    assert (expected - got).abs().max() <= 1e-5 * expected.abs().max()
    if one.can_generate():
        words = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
        assert torch.equal(one.generate(**inputs, **words), other.generate(**inputs, **words))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def said_by_its_configuration(name: str) -> tuple[Any, Cut, mp.ChannelGraph, dict[str, Any]]:
    """As `cut`, within the limits of the configuration alone: channels drawn, 0.85 of the parameters."""
    model, inputs = network(name)
    graph = mp.trace(model, (), inputs | ({"use_cache": False} if getattr(model.config, "use_cache", False) else {}))
    limited = configuration_limits(model, graph).on(graph)
    drawn = torch.Generator().manual_seed(0)
    scores = {axis: torch.rand(one.size, generator=drawn) for axis, one in limited.free.items()}
    done = carve(model, graph, Allocation(limited, mp.Budget(params=0.85, multiple_of=1)).plan(scores))
    assert not done.undone
    return done.model, done, graph, inputs


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ALL])
def test_within_the_limits_of_its_configuration_it_is_a_folder_of_transformers(name: str, tmp_path: Path) -> None:
    small, done, graph, inputs = said_by_its_configuration(name)
    assert done.plan.kept
    assert save_pretrained(tmp_path / "out", small, done.plan, graph) is None
    plain = type(small).from_pretrained(tmp_path / "out")
    same(small, plain, inputs)
    same(small, mp.from_pretrained(tmp_path / "out"), inputs)


@pytest.mark.slow
def test_a_trunk_of_heads_times_head_size_is_tied_to_its_head_sizes() -> None:
    """Nothing is asked of the user, and nothing is kept but the number of heads."""
    model, inputs = network("Bert", num_hidden_layers=1)
    graph = mp.trace(model, (), inputs)
    limits = configuration_limits(model, graph)
    heads, sizes = (f"bert.encoder.layer.0.attention.self.query[{place}]" for place in (0, 1))
    assert limits.keep == (heads,)
    assert limits.together == (("bert.embeddings.word_embeddings[1]", sizes, "bert.pooler.dense"),)
    assert mp.macs(limits.on(graph)) == mp.macs(graph)


def test_what_no_configuration_says_stays_whole(tmp_path: Path) -> None:
    """A layer of one's own in the network has no entry."""
    model, inputs = network("ViT", num_hidden_layers=1)
    model.classifier = nn.Sequential(nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 2))
    graph = mp.trace(model, (), inputs)
    with pytest.raises(PretrainedError, match=r"configuration_limits: .* does not build it"):
        configuration_limits(model, graph)
    plain = nn.Linear(4, 8)
    with pytest.raises(PretrainedError, match=r"Linear is no network of transformers; .*together="):
        configuration_limits(plain, mp.trace(plain, (torch.randn(2, 4),)))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in ALL])
def test_other_blocks_are_a_folder_that_only_we_load(name: str, tmp_path: Path) -> None:
    def ragged(graph: mp.ChannelGraph) -> mp.Plan:
        drawn = torch.Generator().manual_seed(1)
        return mp.Plan(
            {
                name: sorted(torch.randperm(axis.size, generator=drawn)[: 1 + place % axis.size].tolist())
                for place, (name, axis) in enumerate(graph.free.items())
            }
        )

    small, done, graph, inputs = cut(name, ragged)
    why = save_pretrained(tmp_path, small, done.plan, graph)
    loaded = mp.from_pretrained(tmp_path)
    same(small, loaded, inputs)
    if why is None:
        return same(small, type(small).from_pretrained(tmp_path), inputs)
    with pytest.raises(OSError, match="no file named"):
        type(small).from_pretrained(tmp_path)
    with pytest.raises(OSError, match="no file named"):
        type(small).from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    dense, _ = network(name)
    same(small, mp.load(tmp_path / INSIDE, dense), inputs)
    return None


@pytest.fixture(scope="module")
def llama() -> tuple[Any, Cut, mp.ChannelGraph, dict[str, Any]]:
    """Of one layer, traced as it generates."""
    model, inputs = network("Llama", num_hidden_layers=1)
    graph = mp.trace(model, (), inputs, calls=generation_calls(model, (), inputs))
    done = carve(model, graph, halves(graph))
    return done.model, done, graph, inputs


@pytest.fixture(scope="module")
def bloom() -> tuple[Any, Cut, mp.ChannelGraph, dict[str, Any]]:
    return cut("Bloom", n_layer=1)


@pytest.fixture(scope="module")
def ragged_vit() -> tuple[Any, Cut, mp.ChannelGraph, dict[str, Any]]:
    return cut("ViT", lambda graph: mp.Plan({"vit.layers.0.mlp.fc1": range(7)}))


def test_a_scale_that_code_made_of_a_size_is_carried(bloom, tmp_path: Path) -> None:
    small, done, graph, inputs = bloom
    assert save_pretrained(tmp_path, small, done.plan, graph) is None
    plain = type(small).from_pretrained(tmp_path)
    ours, theirs = (network.transformer.h[0].self_attention.inv_norm_factor for network in (small, plain))
    assert ours != theirs, "the weights make up for it"
    same(small, plain, inputs)


def test_frequencies_that_stayed_are_in_the_configuration(llama, tmp_path: Path) -> None:
    """And calls of generate are compared each with a cache of its own."""
    small, done, graph, inputs = llama
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    assert save_pretrained(tmp_path, small, done.plan, graph) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items()), "left untouched"
    plain = type(small).from_pretrained(tmp_path)
    same(small, plain, inputs)
    assert torch.allclose(plain.model.rotary_emb.inv_freq, small.model.rotary_emb.inv_freq)
    assert json.loads((tmp_path / "config.json").read_text())["rope_parameters"]["rope_type"] == "longrope"


def test_a_cut_network_warns_where_its_class_writes_it(llama, tmp_path: Path) -> None:
    small = llama[0]
    with pytest.warns(UserWarning, match="result.save_pretrained"):
        small.save_pretrained(tmp_path / "a")
    with pytest.warns(UserWarning, match="was cut"):
        copy.deepcopy(small).save_pretrained(tmp_path / "b")
    assert type(pickle.loads(pickle.dumps(small))) is type(small)
    dense, _ = network("ViT")
    dense.save_pretrained(tmp_path / "c")


def test_a_result_writes_one_over_the_other(ragged_vit, bloom, tmp_path: Path) -> None:
    """What metaprune wrote is replaced, whichever form it has, and nothing of it stays behind."""
    small, done, graph, inputs = ragged_vit
    result = mp.Result(small, done.plan, None, graph)  # type: ignore[arg-type]
    why = result.save_pretrained(tmp_path)
    assert why is not None
    assert "mp.Limits(alike" in why
    same(small, mp.from_pretrained(tmp_path), inputs)
    with pytest.raises(OSError, match="no file named"):
        type(small).from_pretrained(tmp_path)
    assert save_pretrained(tmp_path, bloom[0], bloom[1].plan, bloom[2]) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("config.json", "generation_config.json", "metaprune.json", "model.safetensors")
    ]
    assert result.save_pretrained(tmp_path) == why
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "metaprune.json", INSIDE]


@pytest.mark.parametrize("name", ["config.json", INSIDE + "/plan.json", ABOUT])
def test_files_of_others_stay(ragged_vit, tmp_path: Path, name: str) -> None:
    small, done, graph, _ = ragged_vit
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(mp.MetapruneError, match=r"was not written by metaprune"):
        save_pretrained(tmp_path, small, done.plan, graph)
    assert path.read_text() == "{}"
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [path.name]


def test_a_repository_of_the_hub_is_fetched_and_a_path_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configurations and weights alone; a folder that is there, or is no owner/name, is not asked for."""
    asked: list[Any] = []

    def fetched(name: str, **settings: Any) -> str:
        asked.append((name, settings))
        if name == "nobody/none":
            raise OSError("no such repository")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    with pytest.raises(PretrainedError, match=rf"{tmp_path}/{ABOUT}.*give a folder that result.save_pretrained wrote"):
        mp.from_pretrained("owner/name-1.0")
    assert asked == [("owner/name-1.0", {"allow_patterns": ["*.json", "*.safetensors"]})]
    with pytest.raises(PretrainedError, match=r"no folder nobody/none, and the Hub gives none .*no such repository"):
        mp.from_pretrained("nobody/none")
    for folder in (Path("owner/name"), "owner/name/more", str(tmp_path), "name"):
        with pytest.raises(PretrainedError, match=r"give a folder that result.save_pretrained wrote"):
            mp.from_pretrained(folder)
    assert len(asked) == 2


def test_what_is_changed_since_is_of_others(ragged_vit, tmp_path: Path) -> None:
    small, done, graph, _ = ragged_vit
    save_pretrained(tmp_path, small, done.plan, graph)
    config = tmp_path / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(PretrainedError, match=r"config.json was not written by metaprune, or was changed"):
        save_pretrained(tmp_path, small, done.plan, graph)


def test_other_networks_and_folders_are_refused(ragged_vit, tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    graph = mp.trace(plain, (torch.randn(2, 4),))
    with pytest.raises(PretrainedError, match=r"Sequential is no network of transformers; result.save"):
        save_pretrained(tmp_path, plain, mp.Plan({}), graph)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PretrainedError, match=r"give a folder that result.save_pretrained wrote"):
            mp.from_pretrained(folder)
    small, done, graph, _ = ragged_vit
    save_pretrained(tmp_path, small, done.plan, graph)
    for name in ("os", "AutoModel", "PreTrainedConfig", "__class__", 3, None):
        write_json(tmp_path / ABOUT, {"network": name, "own": True, "files": {}})
        with pytest.raises(PretrainedError, match="has no network"):
            mp.from_pretrained(tmp_path)
    write_json(tmp_path / ABOUT, {"network": "ViTForImageClassification", "own": False, "files": {}})
    (tmp_path / "config.json").write_text('{"hidden_size": -1}')
    with pytest.raises(PretrainedError, match=r"cannot be loaded|does not fit"):
        mp.from_pretrained(tmp_path)
