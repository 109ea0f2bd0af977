"""What runs a network where it is timed gives what the network gives."""

import torch
from torch import nn

from metaprune.cost.backends import runner


def test_onnx_runtime_runs_the_network_on_its_inputs() -> None:
    network, x = nn.Linear(3, 2).eval(), torch.rand(4, 3)
    [found] = runner(network, (x,), {}, "onnxruntime", 1)()
    torch.testing.assert_close(torch.from_numpy(found), network(x))
