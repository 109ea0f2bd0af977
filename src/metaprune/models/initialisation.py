"""How networks start (He et al. 2015, https://arxiv.org/abs/1502.01852)."""

from torch import nn

__all__ = ["he_normal"]


def he_normal(network: nn.Module) -> None:
    """Weights of variance 2 / fan-in (equation 10), and biases of zero, from torch's global random numbers.

    Norms are left alone: they start as the identity.

    Args:
        network: its convolutions, transposed convolutions and linear layers are set in place.
    """
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):  # its weight is (in, out, kh, kw), and strides do not overlap
            nn.init.normal_(module.weight, std=(2 / module.in_channels) ** 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
