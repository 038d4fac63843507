"""A small DDPM that others trained on 28 x 28 images: epsilon prediction, 1000 steps (section 4).

Its first layer normalisation takes the scale out of its input, so sampling drifts in scale: real
weights, and a case in which schedules along its trajectories gain nothing.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from gits_sampling.models import Denoiser
from torch import Tensor, nn
from torch.nn import functional as F

SIGMAS = (1 / (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0) - 1).sqrt()
"""Noise levels of its training steps, ascending."""

STAGES = {  # name: (channels of the blocks' inputs and outputs, size)
    "b1": ((1, 10, 10, 10), 28),
    "b2": ((10, 20, 20, 20), 14),
    "b3": ((20, 40, 40, 40), 7),
    "b_mid": ((40, 20, 20, 40), 3),
    "b4": ((80, 40, 20, 20), 7),
    "b5": ((40, 20, 10, 10), 14),
    "b_out": ((20, 10, 10, 10), 28),
}


class Block(nn.Module):
    """Norm, convolution, SiLU, convolution, SiLU; the last block's norm is in the file only."""

    def __init__(self, cin: int, cout: int, size: int, norm: bool = True) -> None:
        super().__init__()
        self.ln = nn.LayerNorm((cin, size, size))
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, (B, cout, size, size)."""
        x = self.ln(x) if self.norm else x
        return F.silu(self.conv2(F.silu(self.conv1(x))))


class Network(nn.Module):
    """The network of the files, key by key."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embed = nn.Embedding(1000, 100)
        for name, (channels, size) in STAGES.items():
            pairs = list(itertools.pairwise(channels))
            last = len(pairs) - 1
            blocks = [
                Block(a, b, size, name != "b_out" or i < last) for i, (a, b) in enumerate(pairs)
            ]
            setattr(self, name, nn.Sequential(*blocks))
            width = channels[0]
            layers = nn.Linear(100, width), nn.SiLU(), nn.Linear(width, width)
            setattr(self, name.replace("b", "te", 1), nn.Sequential(*layers))
        self.down1, self.down2 = nn.Conv2d(10, 10, 4, 2, 1), nn.Conv2d(20, 20, 4, 2, 1)
        self.down3 = nn.Sequential(nn.Conv2d(40, 40, 2), nn.SiLU(), nn.Conv2d(40, 40, 4, 2, 1))
        self.up1 = nn.Sequential(
            nn.ConvTranspose2d(40, 40, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(40, 40, 2)
        )
        self.up2, self.up3 = (
            nn.ConvTranspose2d(20, 20, 4, 2, 1),
            nn.ConvTranspose2d(10, 10, 4, 2, 1),
        )
        self.conv_out = nn.Conv2d(10, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the predicted noise of x, (B, 1, 28, 28), at steps t, int64 (B,)."""
        embedded = self.time_embed(t)

        def stage(name: str, x: Tensor) -> Tensor:
            bias = getattr(self, name.replace("b", "te", 1))(embedded)
            return getattr(self, name)(x + bias[:, :, None, None])

        one = stage("b1", x)
        two = stage("b2", self.down1(one))
        three = stage("b3", self.down2(two))
        x = stage("b_mid", self.down3(three))
        x = stage("b4", torch.cat([three, self.up1(x)], 1))
        x = stage("b5", torch.cat([two, self.up2(x)], 1))
        return self.conv_out(stage("b_out", torch.cat([one, self.up3(x)], 1)))


def load(folder: Path, name: str) -> Network:
    """Return the network of ddpm_NAME.pt."""
    state = torch.load(folder / f"ddpm_{name}.pt", map_location="cpu", weights_only=True)
    network = Network().eval().requires_grad_(False)
    network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
    return network


def denoiser(network: Network) -> Denoiser:
    """Return D of the noise prediction: the time step is the one nearest in ln sigma."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        t = (SIGMAS.log() - sigma.log()).abs().argmin().expand(len(x))
        return x - sigma * network(x / (1 + sigma**2).sqrt(), t)

    return denoise
