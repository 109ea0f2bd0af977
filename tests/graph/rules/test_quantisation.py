"""Networks made ready for quantisation-aware training, by PyTorch's own tool, which is for float32."""

import warnings

import pytest
import torch
from torch import nn

import metaprune as mp


def prepared(observe: bool) -> tuple[nn.Module, torch.Tensor]:
    """A network with observers, one per channel for weights and one for all activations, that have seen data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.quantization as quantization

        model = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(12, 5),
        ).train()  # fmt: skip
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
        model = quantization.prepare_qat(model)
        x = torch.rand(2, 3, 8, 8)
        model(x)
        if not observe:
            model.apply(quantization.disable_observer)
    return model.eval(), x


@pytest.mark.parametrize("observe", [False, True])
def test_quantisation_aware_training_is_cut(observe: bool) -> None:
    torch.manual_seed(0)
    model, x = prepared(observe)
    graph = mp.trace(model, (x,))
    assert sorted(axis.size for axis in graph.free.values()) == [12, 16]
    plan = mp.Plan({name: range(0, axis.size, 2) for name, axis in graph.free.items()})
    small = mp.slice(model, graph, plan)
    observer = small.get_submodule("2.weight_fake_quant")
    assert observer.scale.shape == observer.activation_post_process.min_val.shape == (6,)
    torch.testing.assert_close(small(x), mp.mask(model, graph, plan)(x), rtol=1e-5, atol=1e-5)
