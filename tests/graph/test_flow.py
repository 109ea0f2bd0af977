"""Sources of operands: an operator by its place, anything else by its name, always with which output it is."""

import torch
from torch import Tensor, fx, nn

from metaprune.graph.flow import sources


class Sums(nn.Module):
    """A sum with a tensor that the program holds, and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.table) * x


def test_every_operand_has_a_source() -> None:
    program = fx.symbolic_trace(Sums())
    x, _, plus, times, _ = program.graph.nodes
    flows, returned = sources(program, {x: "x"}, [plus, times])
    assert flows == [(("x", 0), ("constant", 0)), ((0, 0), ("x", 0))]
    assert returned == ((1, 0),)


def test_what_is_not_known_is_said_to_be_so() -> None:
    program = fx.symbolic_trace(Sums())
    x, _, _, times, _ = program.graph.nodes
    flows, returned = sources(program, {x: "x"}, [times])
    assert flows == [(("unknown", 0), ("x", 0))]
    assert returned == ((0, 0),)


def test_an_output_of_several_is_said_with_its_place() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            one, other = x.chunk(2)
            return other - one

    program = torch.export.export(Halves(), (torch.ones(4),)).graph_module
    x, halves, *_, difference, _ = program.graph.nodes
    flows, returned = sources(program, {x: "x"}, [halves, difference])
    assert flows == [(("x", 0),), ((0, 1), (0, 0))]
    assert returned == ((1, 0),)
