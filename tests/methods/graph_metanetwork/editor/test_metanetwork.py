"""The metanetwork: equivariant to renumbering, nothing before training, one for all networks."""

import copy

import pytest
import torch
from torch import Generator

from metaprune.graph.errors import MetapruneError
from metaprune.methods.graph_metanetwork import Metanetwork, graph_of
from metaprune.methods.graph_metanetwork.editor import metanetwork as module
from metaprune.methods.graph_metanetwork.editor.edit import rewrite
from metaprune.methods.graph_metanetwork.reading.survey.left import LEFT
from tests.laws import oracle
from tests.methods.graph_metanetwork.cases import case, gradients, stirred, told
from tests.zoo import networks


@pytest.mark.parametrize("name", networks(families=4))
def test_renumbered_channels_are_edited_alike(name: str) -> None:
    """Editing commutes with a renumbering of the channels of all free axes, and so does the function."""
    c = case(name)
    if not c.read.learned:
        return
    generator = Generator().manual_seed(3)
    orders = {axis: torch.randperm(a.size, generator=generator).tolist() for axis, a in c.graph.free.items()}
    metanetwork = stirred(step=0.3)
    (edited, _, scores, *_), (moved, read, others, *_) = (
        rewrite(model, c.graph, metanetwork) for model in (c.model, oracle.permute(c.model, c.graph, orders))
    )
    for axis, nodes in read.free.items():
        torch.testing.assert_close(others[nodes], scores[nodes][orders[axis]], rtol=1e-8, atol=1e-9)
    expected = dict(oracle.permute(edited, c.graph, orders).named_parameters())
    for path, parameter in moved.named_parameters():
        torch.testing.assert_close(parameter, expected[path], rtol=1e-8, atol=1e-9, msg=path)
    assert oracle.distance(c.run(edited), c.run(moved)) < 1e-6


def test_channels_are_told_apart() -> None:
    """Edits are no constant: they differ between channels of a free axis, and between tensors."""
    c = case("resnet")
    edited = stirred()(c.read).weights
    shifts = {path: edited[path] - c.parameters[path] for path in edited}
    for path in ("conv1.weight", "bn1.weight"):
        assert shifts[path].flatten(1).std(0).min() > 1e-4 if shifts[path].dim() > 1 else shifts[path].std() > 1e-4
    assert all(shift.any() for shift in shifts.values())


def test_edits_are_relative_to_the_scale_of_a_tensor() -> None:
    """A network seven times as large is edited seven times as much, but for the scale that is told."""
    c = case("vgg")
    large = copy.deepcopy(c.model)
    with torch.no_grad():
        for tensor in (*large.parameters(), *(b for b in large.buffers() if b.is_floating_point())):
            tensor.mul_(7)
    for relative in (True, False):
        metanetwork = stirred(relative=relative)
        with torch.no_grad():
            metanetwork.read_tensor[0].weight[:, -2] = 0
        before, after = metanetwork(c.read).weights, metanetwork(graph_of(large, c.graph)).weights
        alike = [torch.allclose(after[path] / 7, before[path], rtol=1e-9, atol=1e-12) for path in before]
        assert all(alike) is relative


def test_the_step_is_the_size_of_edits() -> None:
    c = case("vgg")
    one, two = (stirred(step=step)(c.read).weights["features.3.weight"] for step in (0.1, 0.2))
    weight = c.parameters["features.3.weight"]
    torch.testing.assert_close(two - weight, 2 * (one - weight))


def test_weights_of_any_precision() -> None:
    c = case("vgg")
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        model = copy.deepcopy(c.model).to(dtype)
        edited = stirred().float()(graph_of(model, c.graph)).weights
        assert {tensor.dtype for tensor in edited.values()} == {dtype}
        assert all(tensor.isfinite().all() for tensor in edited.values())


def test_every_weight_of_the_metanetwork_is_used() -> None:
    metanetwork = stirred()
    weights, scores, _ = metanetwork(told(case("attention_split").read))
    torch.stack([tensor.sin().sum() for tensor in (*weights.values(), scores)]).sum().backward()
    found = gradients(metanetwork)
    assert found.keys() == dict(metanetwork.named_parameters()).keys()
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


@pytest.mark.parametrize("wrong", [{"hidden": 3}, {"hidden": 0}, {"layers": 0}, {"step": 0}, {"step": float("inf")}])
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(MetapruneError, match=f"Metanetwork: expected.*{next(iter(wrong))}"):
        Metanetwork(**wrong)


@pytest.mark.parametrize("kept", [0, 2**30])
def test_with_and_without_a_tape_it_edits_alike(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", kept)
    read = case("attention_split").read
    metanetwork = stirred()
    taped = metanetwork(read).weights
    with torch.no_grad():
        assert oracle.distance({n: w.detach() for n, w in taped.items()}, metanetwork(read).weights) < 1e-10


def test_scores_of_axes_leave_the_order_inside_alone() -> None:
    """What axes say is the same for all channels; beside it, channels' scores have the mean 0 in each."""
    read = told(case("resnet").read)
    metanetwork, scores = stirred(scored="both", edits=False), {}
    for metanetwork.scored in ("channels", "axes", "both"):
        scores[metanetwork.scored] = metanetwork(read).scores.detach()
    for nodes in read.free.values():
        assert (scores["axes"][nodes] == scores["axes"][nodes][0]).all()
        assert scores["channels"][nodes].std() > 1e-3
        middle = scores["channels"][nodes].mean()
        torch.testing.assert_close(
            scores["both"][nodes] - scores["axes"][nodes], scores["channels"][nodes] - middle, rtol=1e-6, atol=1e-8
        )
    assert len({round(float(scores["axes"][nodes][0]), 6) for nodes in read.free.values()}) == len(read.free) > 2
    with pytest.raises(MetapruneError, match="scored as channels or axes or both or widths, got 'none'"):
        Metanetwork(scored="none")  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [0, 2])
def test_widths_are_said_of_axes_that_may_be_cut(layers: int) -> None:
    """Within bounds; beside them nothing has a score."""
    read = told(case("resnet").read)
    metanetwork = stirred(layers=layers, scored="widths", edits=False)
    edited = metanetwork(read.aimed(0.3))
    assert not edited.scores.any()
    free = torch.tensor([name in read.free for name in read.names])
    assert not free.all()
    assert not edited.tilts[~free].any()
    assert 1e-3 < edited.tilts[free].abs().max() <= module.WIDEST
    assert edited.tilts[free].std() > 1e-3
    assert all(torch.equal(edited.weights[block.name], block.tensor(block.matrix)) for block in read.learned)
    assert not stirred(scored="both", edits=False)(read).tilts.any()
    assert not Metanetwork(4, layers, scored="widths", edits=False)(read).tilts.any()


def test_without_messages_widths_are_linear_in_what_is_told() -> None:
    """By hand: in how it differs from the mean of all axes that may be cut, and in what is left of them."""
    read = told(case("resnet").read)
    free = [place for place, name in enumerate(read.names) if name in read.free]
    for left in (None, torch.randn(len(read.names), LEFT, generator=Generator().manual_seed(0)).tolist()):
        metanetwork = stirred(layers=0, scored="widths", edits=False, surveys=("left",) if left else ())
        rows = read.aimed(0.1).axes[free].double()
        if left:
            rows = torch.cat([rows, torch.tensor(left, dtype=torch.float64)[free]], 1)
        rows = torch.cat([torch.ones(len(rows), 1), rows - rows.mean(0)], 1).double()
        said = rows @ metanetwork.read_widths.weight[0].detach().double()
        found = metanetwork(read.aimed(0.1, left)).tilts[free].detach().double()
        torch.testing.assert_close(found, module.WIDEST * said.tanh(), rtol=1e-5, atol=1e-7)


def test_without_edits_weights_are_copies_of_what_they_were() -> None:
    found = case("resnet")
    edited = stirred(edits=False)(found.read)
    for name, weight in edited.weights.items():
        assert torch.equal(weight, found.parameters[name])
        assert weight.data_ptr() != found.parameters[name].data_ptr()
    torch.testing.assert_close(edited.scores, stirred()(found.read).scores)


def test_a_graph_that_was_not_surveyed() -> None:
    with pytest.raises(MetapruneError, match="expected a graph surveyed for cost"):
        stirred(surveys=("cost",))(case("resnet").read)
    with pytest.raises(
        MetapruneError, match=r"surveyed for left \(2 numbers an axis\), got 0; .* read.aimed\(share, left"
    ):
        stirred(surveys=("left",))(case("resnet").read.aimed(0.5))
