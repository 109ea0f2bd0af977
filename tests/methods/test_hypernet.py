"""The modules of DHP: latents of tensor dimensions, the paper's hypernetwork, and the gate."""

import copy
import itertools
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

import metaprune as mp
from metaprune.graph.errors import MetapruneError
from metaprune.graph.graph import ChannelGraph
from metaprune.graph.term import Axis, Concat, Product, Term, channels
from metaprune.methods.dhp.hypernet import HyperNetwork, collapse
from metaprune.methods.gates.generated import Generated
from metaprune.methods.gates.latents import Latents
from metaprune.methods.gates.terms import counted_axes
from metaprune.surgery.slice import carve
from tests.laws import oracle
from tests.laws.case import Case, case
from tests.methods.rough import is_cut_whole, rough_cut
from tests.zoo import ZOO, networks

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's, of float32 on the CPU

FORMS = ("gate", "hypernetwork")
CONVOLUTIONAL = (
    *("densenet", "efficientnet", "resnext", "shufflenet_v1", "edsr"),  # every kind of term: the others repeat them
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("resnet", "unet", "mobilenet_v2", "depth_multiplier", "prelu", "siamese")
    ),
)

CANCELLING = ("dictionaries",)
"""One of its outputs is a small difference of large numbers, of which float32 keeps five digits."""


def in_single(chosen: list[Any]) -> list[Any]:
    """The networks that compute in the precision of their weights."""
    return [network for network in chosen if not says_float64(network.values[0])]


def says_float64(name: str) -> bool:
    """Whether the code of a network does."""
    return ZOO[name].family == "transformers" or name == "llama_rotary_in_forward"


def in_both() -> list[Any]:
    """Networks in float64, and where that can be, in float32, of which fewer are quick."""
    both = ((torch.float64, networks(families=3)), (torch.float32, in_single(networks(families=9))))
    return [pytest.param(*network.values, dtype, marks=network.marks) for dtype, some in both for network in some]


def generated(c: Case, form: Any) -> Generated:
    """In float64, whatever the precision of the latents."""
    return mp.DHP(form=form).generate(c.model, c.graph).double()


def divides_by_what_is_silent(name: str) -> None:
    if name == "standardised_by_layer_norm":
        pytest.xfail("the network divides each filter by its own largest entry: of a filter of zeros, zero by zero")


def in_float32(c: Case) -> Case:
    """The same network and inputs, with the graph as it was traced: its programs are those of float64."""

    def single(value: Tensor) -> Tensor:
        return value.float() if value.is_floating_point() else value

    args, kwargs = tree_map_only(Tensor, single, (c.args, c.kwargs))
    return replace(c, model=copy.deepcopy(c.model).float(), args=args, kwargs=kwargs)


@torch.no_grad()
def perturb(latents: Latents, seed: int = 1) -> None:
    """Latents of both signs, none near zero."""
    generator = Generator().manual_seed(seed)
    for z in latents.vectors:
        size = 0.5 + torch.rand(z.shape, generator=generator, dtype=z.dtype)
        z.copy_(size * (torch.rand(z.shape, generator=generator).round() * 2 - 1))


A, B, C = Axis("a", 2), Axis("b", 3), Axis("c", 2)
TERMS: dict[str, Term] = {
    "axis": A,
    "product": Product((A, B)),
    "the other way round": Product((B, A)),
    "without latents": Product((B, C)),
    "the picture outside": Product((C, B)),
    "three factors": Product((A, C, B)),
    "concatenation": Concat((A, B, A)),
    "product of a concatenation": Product((Concat((A, B)), C)),
    "concatenation of products": Concat((Product((A, B)), C, Product((C, A)))),
    "a square": Product((A, A)),
    "nothing": Product(()),
}


@pytest.mark.parametrize("kind", TERMS)
def test_latents_of_a_dimension(kind: str) -> None:
    """Position by position: the product of the latents of the channels that meet there."""
    latents = Latents({"a": torch.tensor([2.0, 3.0]), "b": torch.tensor([5.0, 7.0, -11.0])})

    def entries(term: Term) -> list[float]:
        if isinstance(term, Axis):
            return latents.named()[term.name].tolist() if term.name != "c" else [1.0] * term.size
        if isinstance(term, Product):
            return [prod(meeting) for meeting in itertools.product(*map(entries, term.factors))]
        return [entry for part in term.parts for entry in entries(part)]

    assert latents.of(TERMS[kind]).tolist() == entries(TERMS[kind])
    assert latents.touches(TERMS[kind]) == (kind != "nothing")


def test_a_dimension_without_latents_is_not_touched() -> None:
    latents = Latents({"a": torch.ones(2)})
    assert not latents.touches(Product((B, C)))
    assert latents.of(Product((B, C))).tolist() == [1.0] * 6


def random_hypernetwork(shape: tuple[int, ...], offsets: bool) -> HyperNetwork:
    hyper = HyperNetwork(shape, embedding=5, offsets=offsets).double()
    with torch.no_grad():
        for parameter in hyper.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return hyper


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 3, 1, 1), (6, 5), (2, 7, 3)])
@pytest.mark.parametrize("offsets", [False, True])
def test_the_hypernetwork_is_a_gate(shape: tuple[int, ...], offsets: bool) -> None:
    hyper = random_hypernetwork(shape, offsets)
    free, fixed = collapse(hyper)
    assert free.shape == fixed.shape == shape
    assert bool((fixed != 0).any()) == offsets
    for _ in range(3):
        v_out, v_in = torch.randn(shape[0]).double(), torch.randn(shape[1]).double()
        outer = torch.outer(v_out, v_in).reshape(*shape[:2], *[1] * (len(shape) - 2))
        torch.testing.assert_close(hyper(v_out, v_in), outer * free + fixed, rtol=0, atol=1e-12)


def test_the_hypernetwork_by_hand() -> None:
    """Equations of the paper, location by location, for one weight."""
    hyper = random_hypernetwork((2, 3, 2, 2), offsets=True)
    v_out, v_in = torch.randn(2).double(), torch.randn(3).double()
    weight = hyper(v_out, v_in)
    b0, b1, b2 = hyper.offsets
    for o, i in itertools.product(range(2), range(3)):
        embedded = (v_out[o] * v_in[i] + b0[o, i]) * hyper.weight1[o, i] + b1[o, i]
        for tap in range(4):
            explicit = hyper.weight2[o, i, tap] @ embedded + b2[o, i, tap]
            assert weight[o, i].flatten()[tap].item() == pytest.approx(explicit.item(), abs=1e-12)


def test_the_hypernetwork_starts_as_the_paper_says() -> None:
    """Var(w1) = 1, and Var(w2) = 1 / (m I k^2), so that the weights have the scale of a linear layer."""
    hyper = HyperNetwork((64, 32, 3, 3), embedding=8)
    assert hyper.weight1.var().item() == pytest.approx(1, rel=0.05)
    assert hyper.weight2.var().item() == pytest.approx(1 / (8 * 32 * 9), rel=0.05)
    assert sum(p.numel() for p in hyper.parameters()) == 64 * 32 * (8 + 8 * 9)
    with_offsets = HyperNetwork((64, 32, 3, 3), embedding=8, offsets=True)
    assert sum(p.numel() for p in with_offsets.parameters()) == 64 * 32 * 98


def test_reproduce_is_exact_and_of_least_norm() -> None:
    hyper = HyperNetwork((4, 3, 3, 3)).double()
    weight = torch.randn(4, 3, 3, 3).double()
    v_out, v_in = torch.rand(4).double() + 0.1, -torch.rand(3).double() - 0.1
    hyper.reproduce(weight, v_out, v_in)
    torch.testing.assert_close(hyper(v_out, v_in), weight, rtol=0, atol=1e-12)
    along = torch.einsum("oikm,oim->oik", hyper.weight2, hyper.weight1)[..., None] * hyper.weight1[:, :, None]
    along = along / hyper.weight1.square().sum(-1)[:, :, None, None]
    torch.testing.assert_close(hyper.weight2.data, along.data)


@pytest.mark.parametrize("name", in_single(networks(families=3)))
@pytest.mark.parametrize("form", FORMS)
def test_at_step_0_it_is_the_network(name: str, form: Any) -> None:
    """In the float32 that people use: the outputs differ by rounding, relative to the largest entry of each."""
    c = in_float32(case(name))
    if not c.graph.free:
        return
    before = oracle.fingerprint(c.model)
    start = mp.DHP(form=form).generate(c.model, c.graph)
    assert oracle.distance(c.run(c.model), c.run(start)) < (5e-6 if name in CANCELLING else 1e-6)
    assert oracle.fingerprint(c.model) == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["resnet"])
def test_a_network_of_another_precision_stays_one(name: str, form: Any, dtype: torch.dtype) -> None:
    c = case(name)
    model, args = copy.deepcopy(c.model).to(dtype), tuple(arg.to(dtype) for arg in c.args)
    start = mp.DHP(form=form).generate(model, c.graph)
    tolerance = 1e-12 if dtype == torch.float64 else 0.1
    assert oracle.distance(oracle.call(model, args, {}), oracle.call(start, args, {})) < tolerance
    assert {parameter.dtype for parameter in start.fold().parameters()} == {dtype}


@pytest.mark.parametrize(("name", "dtype"), in_both(), ids=str)
def test_a_zero_latent_is_a_cut(name: str, dtype: torch.dtype) -> None:
    """Zero, fold, slice: the sliced network computes what the gated one did, for any other latents.

    The distance of outputs is relative to the largest entry of each output.
    """
    divides_by_what_is_silent(name)
    c = case(name, dtype)
    if not c.graph.free:
        with pytest.raises(MetapruneError, match="no free axis"):
            mp.DHP().generate(c.model, c.graph)
        return
    rounding, tolerance = (1e-12, 1e-10) if dtype == torch.float64 else (1e-6, 1e-5)
    gated = mp.DHP().generate(c.model, c.graph)
    if dtype == torch.float64:  # float32 is `test_at_step_0_it_is_the_network`
        assert oracle.distance(c.run(c.model), c.run(gated)) < rounding
    plan = silence(gated, c.graph)
    expected = c.run(gated)
    folded = gated.fold()
    if not counted_axes(c.graph):
        assert oracle.distance(expected, c.run(folded)) < rounding
    if is_cut_whole(name) and dtype == torch.float64 and not says_float64(name):  # in float32 cuts are verified, too
        small = rough_cut(folded, c.graph, plan)
    else:
        cut = carve(folded, c.graph, plan)
        assert not (is_cut_whole(name) and cut.undone)
        small = cut.model
    assert oracle.distance(expected, c.run(small)) < tolerance


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["shared_convolution", "shared_layers", "gpt", "siamese"])
def test_a_call_gives_shared_modules_and_tied_weights_back(name: str, form: Any) -> None:
    """What is trained is what the network still holds afterwards, under all its names."""
    c = case(name)
    network = generated(c, form)
    before = {path: id(p) for path, p in network.named_parameters(remove_duplicate=False)}
    for _ in range(2):
        sum(output.square().sum() for output in tree_leaves(network(*c.args, **c.kwargs))).backward()
    assert {path: id(p) for path, p in network.named_parameters(remove_duplicate=False)} == before
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "name",
    [
        *("resnet", "gpt", "rms_mlp", "group_norm", "mixer", "gru", "weight_norm"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit", "llama", "convnext")),
    ],
)
def test_a_zero_latent_is_a_cut_in_training_too(name: str) -> None:
    """Statistics of the batch, and gradients of what stays, are those of the cut network."""
    c = case(name)
    gated = mp.DHP().generate(c.model, c.graph)
    for module in gated.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # it draws by shape
    plan = silence(gated, c.graph)
    small = rough_cut(gated.fold(), c.graph, plan)
    for network in (gated, small):
        network.train()
    ours, theirs = ([o for o in tree_leaves(n(*c.args, **c.kwargs)) if o.requires_grad] for n in (gated, small))
    for one, other in zip(ours, theirs, strict=True):
        assert oracle.distance(one, other) < 1e-10
    if any(operator.scale is not None for operator in c.graph.operators):
        return  # weights were rescaled, and so their gradients
    for outputs in (ours, theirs):
        torch.stack([output.square().sum() for output in outputs]).sum().backward()
    trained = dict(gated.network.named_parameters())
    cut = dict(small.named_parameters())
    for name, terms in gated.terms.items():
        gradient = trained[name].grad / gated.gate(terms)
        for dim, term in enumerate(c.graph.tensors[name]):
            gradient = gradient.index_select(dim, channels(term, plan.kept))
        assert oracle.distance(gradient, cut[name].grad) < 1e-8, name


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_norms_count_the_living_with_affine_weights_and_without(norm: Any, affine: bool) -> None:
    """In either form the operator is given fewer arguments than its schema has. The gradients are the cut's, too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 9), norm(9, elementwise_affine=affine), nn.Linear(9, 4)).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    graph = mp.trace(model, (x,))
    gated = mp.DHP().generate(model, graph)
    plan = silence(gated, graph, mp.Plan({"0": [0, 2, 3, 7]}))
    small = mp.slice(gated.fold(), graph, plan)
    x.requires_grad_()
    ours, theirs = gated(x), small(x)
    assert oracle.distance(ours, theirs) < 1e-10
    gradients = [torch.autograd.grad(outputs.square().sum(), x)[0] for outputs in (ours, theirs)]
    assert gradients[0].abs().max() > 1e-3
    assert oracle.distance(*gradients) < 1e-10


@pytest.mark.parametrize("name", [*networks(families=5), "attention_einsum", "bilinear", "einsum_transformer"])
def test_a_zero_latent_is_a_cut_of_hypernetworks_too(name: str) -> None:
    divides_by_what_is_silent(name)
    c = case(name)
    if c.graph.free:
        hyper = generated(c, "hypernetwork")
        plan = silence(hyper, c.graph)
        expected = c.run(hyper)
        folded = hyper.fold()
        small = rough_cut(folded, c.graph, plan) if is_cut_whole(name) else carve(folded, c.graph, plan).model
        assert oracle.distance(expected, c.run(small)) < 1e-10


@torch.no_grad()
def silence(network: Generated, graph: ChannelGraph, plan: mp.Plan | None = None) -> mp.Plan:
    """Zeroes the latents outside a plan, by default a random one."""
    plan = plan or oracle.ragged(graph, seed=2)
    perturb(network.latents)
    for axis, z in network.latents.named().items():
        gone = torch.ones(len(z), dtype=torch.bool)
        gone[list(plan.kept[axis])] = False
        z[gone] = 0
    network.hide(plan)
    return plan


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_both_forms_compute_one_function_of_the_latents(name: str) -> None:
    c = case(name)
    gate, hyper = generated(c, "gate"), generated(c, "hypernetwork")
    assert len(hyper.hypernetworks) >= 2
    for seed in (1, 2):
        perturb(gate.latents, seed)
        perturb(hyper.latents, seed)
        assert oracle.distance(c.run(gate), c.run(hyper)) < 1e-4  # what float32 left of w2
    assert oracle.distance(c.run(c.model), c.run(gate)) > 1e-2


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_generating_commutes_with_slicing(name: str) -> None:
    """The cut of a generated network is generated from the cut latents and the cut weights behind it."""
    c = case(name)
    wide = {axis: kept for axis, kept in oracle.half(c.graph).kept.items() if len(kept) > 1}
    plan = mp.Plan(wide)  # an axis of one channel is none any more
    whole = mp.DHP().generate(c.model, c.graph)
    start = {axis: z.detach().clone() for axis, z in whole.latents.named().items()}
    perturb(whole.latents)
    moved = {axis: z.detach().clone() for axis, z in whole.latents.named().items()}
    expected = rough_cut(whole.fold(), c.graph, plan)

    small = rough_cut(c.model, c.graph, plan)
    graph = mp.trace(small, c.args, c.kwargs)
    kept = {axis: list(stays) for axis, stays in plan.kept.items()}
    assert plan.widths == {axis: graph.axes[axis].size for axis in plan}
    stays = {axis: kept.get(axis, list(range(len(z)))) for axis, z in start.items()}
    pruned = Generated(small, graph, Latents({axis: z[stays[axis]] for axis, z in start.items()}))
    with torch.no_grad():
        for axis, z in pruned.latents.named().items():
            z.copy_(moved[axis][stays[axis]])
    for (path, one), (_, other) in zip(pruned.fold().named_parameters(), expected.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12, msg=path)


@pytest.mark.parametrize("name", ["gpt"])
def test_tied_weights_are_gated_once_and_stay_tied(name: str) -> None:
    c = case(name)
    gated = generated(c, "gate")
    perturb(gated.latents)
    folded = gated.fold()
    ties = {name: id(p) for name, p in folded.named_parameters(remove_duplicate=False)}
    was = {name: id(p) for name, p in c.model.named_parameters(remove_duplicate=False)}
    assert len(set(ties.values())) == len(set(was.values())) < len(was)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["efficientnet"])
def test_gradients_reach_every_latent_and_weight(name: str, form: Any) -> None:
    c = case(name)
    network = generated(c, form)
    output: Tensor = network(*c.args)
    output.square().sum().backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.latents.parameters())
    assert all(p.grad is not None for p in trained)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["resnet"])
def test_frozen_parameters_stay_frozen(name: str, form: Any) -> None:
    c = case(name)
    model = copy.deepcopy(c.model)
    model.get_parameter("conv1.weight").requires_grad_(False)
    frozen = {name: p.requires_grad for name, p in model.named_parameters()}
    network = generated(replace(c, model=model), form)
    behind = [network.network.get_parameter("conv1.weight")]
    behind += network.hypernetworks["conv1/weight"].parameters() if form == "hypernetwork" else []
    assert not any(parameter.requires_grad for parameter in behind)
    assert {name: p.requires_grad for name, p in network.fold().named_parameters()} == frozen


@pytest.mark.parametrize("name", ["prelu"])
def test_offsets_speak_where_latents_are_silent(name: str) -> None:
    """Why `exact` is false with the paper's biases."""
    c = case(name)
    hyper = mp.DHP(form="hypernetwork", offsets=True).generate(c.model, c.graph).double()
    with torch.no_grad():
        for network in hyper.hypernetworks.values():
            for offset in network.offsets:
                offset.normal_()
    plan = silence(hyper, c.graph)
    expected = c.run(hyper)
    assert oracle.distance(expected, c.run(rough_cut(hyper.fold(), c.graph, plan))) > 1e-3


@pytest.mark.parametrize("name", ["densenet"])
def test_dead_channels_have_zero_parameters(name: str) -> None:
    c = case(name)
    gated = generated(c, "gate")
    plan = silence(gated, c.graph)
    for name, parameter in gated.fold().named_parameters():
        for dim, term in enumerate(c.graph.tensors[name]):
            gone = torch.ones(parameter.shape[dim], dtype=torch.bool)
            gone[channels(term, plan.kept)] = False
            assert not parameter.movedim(dim, 0)[gone].any()
