"""The multi-layer perceptrons between an encoder and a joint-embedding loss."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def projection_head(
    *sizes: int,
    norm: bool = True,
    last_norm: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Return linear layers with batch norm and activation between them, nothing after the last.

    Args:
        sizes: width of the input and of every layer, two or more numbers >= 1.
        norm: batch norm after every layer but the last (which then have no bias).
        last_norm: a batch norm without scale and shift after the last layer (SimSiam).
        activation: class of the activation.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes must be two or more numbers >= 1, got {sizes}")
    *hidden, (last_in, out) = pairwise(sizes)
    layers: list[nn.Module] = []
    for fan_in, width in hidden:
        layers.append(nn.Linear(fan_in, width, bias=not norm))
        layers += [nn.BatchNorm1d(width)] if norm else []
        layers.append(activation())
    layers.append(nn.Linear(last_in, out, bias=not last_norm))
    layers += [nn.BatchNorm1d(out, affine=False)] if last_norm else []
    return nn.Sequential(*layers)


class DINOHead(nn.Module):
    """DINO's head: a perceptron with GELU, then cosines to K prototypes.

    A weight-normalised linear layer whose length is fixed to 1, on unit rows, is just that.

    Args:
        sizes: width of the input and of every layer of the perceptron.
        prototypes: K, number of outputs.
    """

    freedom: Tensor

    def __init__(self, *sizes: int, prototypes: int = 2048):
        super().__init__()
        self.layers = projection_head(*sizes, norm=False, activation=nn.GELU)
        self.prototypes = nn.Parameter(torch.randn(prototypes, sizes[-1]))
        self.register_buffer("freedom", torch.ones(()))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def set_frozen(self, frozen: bool) -> None:
        """Give the prototypes zero gradients from now on, or let them go."""
        self.freedom.fill_(0.0 if frozen else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return cosines in [-1, 1], shape (N, K), for features of shape (N, D)."""
        # scales the gradient alone: detach() would leave DistributedDataParallel waiting for one
        prototypes = torch.lerp(self.prototypes.detach(), self.prototypes, self.freedom)
        return F.linear(F.normalize(self.layers(x), dim=1), F.normalize(prototypes, dim=1))
