"""Pieces that several networks share."""

from __future__ import annotations

from torch import nn


def conv3x3(inp: int, out: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias that keeps the size at stride 1.

    Args:
        inp: channels in.
        out: channels out.
        stride: pixels per step.
    """
    return nn.Conv2d(inp, out, 3, stride, 1, bias=False)


def init_convs(network: nn.Module) -> None:
    """Draw every convolution's weights from N(0, 2 / (k^2 out)), He's fan-out rule; zero biases."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_linear(layer: nn.Linear) -> None:
    """Draw a classifier's weights from N(0, 0.01^2); zero biases."""
    nn.init.normal_(layer.weight, 0.0, 0.01)
    nn.init.zeros_(layer.bias)
