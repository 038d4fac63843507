"""gits-sampling finds the noise levels for a stock diffusers pipeline that draws in five steps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from diffusers import DDPMPipeline, DPMSolverMultistepScheduler
from diffusers.models.unets.unet_2d import UNet2DOutput
from gits_sampling import EpsDenoiser, fit_schedule
from gits_sampling.models import digits_empirical
from torch import Tensor, nn

STEPS = 5


class Digits(nn.Module):
    """Predicts noise in scikit-learn's digits exactly; levels (M,): noise to signal by step."""

    config = SimpleNamespace(sample_size=8, in_channels=1)  # what a pipeline asks a network for
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, levels: Tensor) -> None:
        super().__init__()
        self.denoiser, self.logs = digits_empirical(), levels.log().numpy()

    def forward(self, sample: Tensor, timestep: Tensor) -> UNet2DOutput:
        """Return the noise in samples (N, 1, 8, 8) at a time, scalar or (N,)."""
        level = np.exp(np.interp(timestep, np.arange(len(self.logs)), self.logs))
        level = torch.from_numpy(level * np.ones(len(sample)))[:, None, None, None]
        noisy = sample.double() * (1 + level**2).sqrt()
        return UNet2DOutput(((noisy - self.denoiser(noisy, level.flatten())) / level).float())


def draw(pipeline: DDPMPipeline, steps: int) -> Tensor:
    """Return 256 pictures (256, 8, 8, 1) in [0, 1], always from the same noise."""
    found = pipeline(256, torch.Generator().manual_seed(1), steps, output_type="np")
    return torch.from_numpy(found.images)


def main() -> tuple[float, ...]:
    """Return the mean distance of five steps' pictures to 100 steps': as spaced, and as found."""
    scheduler = DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02)
    table = scheduler.alphas_cumprod.double()
    network = Digits(((1 - table) / table).sqrt())
    pipeline = DDPMPipeline(network, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    fine, few = draw(pipeline, 100), [draw(pipeline, STEPS)]
    denoiser = EpsDenoiser(lambda x, time: network(x, time).sample, table)
    about = {"shape": (1, 8, 8), "sigma_min": denoiser.sigma_min, "sigma_max": denoiser.sigma_max}
    schedule = fit_schedule(denoiser, **about, points=31, nfe=STEPS, solver="dpmpp", order=2)
    pipeline.scheduler = schedule.to_diffusers(scheduler)
    few.append(draw(pipeline, STEPS))
    return tuple(float((end - fine).flatten(1).norm(dim=1).mean()) for end in few)


if __name__ == "__main__":
    print("to 100 steps' pictures: as spaced {:.3f}, as found {:.3f}".format(*main()))
