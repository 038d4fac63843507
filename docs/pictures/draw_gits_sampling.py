"""gits-sampling: samples of a closed-form model, exactly, and in five steps by three schedules."""

from __future__ import annotations

import math
from typing import Any

import torch
from card import BLUE, TEXT, TITLE, save
from gits_sampling import GaussianMixtureDenoiser, fit_schedule, sample
from gits_sampling.latents import draw_latents
from gits_sampling.sigmas import log_snr, polynomial, time_uniform
from gits_sampling.stepping import Solver

LOW, HIGH, STEPS = 0.01, 40.0, 5
SOLVER: Solver = "ipndm"
SEEDS = range(10_000, 10_400)  # not those of the warm-up


def main() -> None:
    """Draw where samples end, and how far that is from where they should."""
    angles = torch.arange(8) * 2 * math.pi / 8
    means = 1.3 * torch.stack([angles.cos(), angles.sin()], 1)
    model = GaussianMixtureDenoiser(means, torch.full((8,), 0.12**2))
    ends: dict[str, Any] = {"sigma_min": LOW, "sigma_max": HIGH}
    found = fit_schedule(model, **ends, shape=(2,), nfe=STEPS, solver=SOLVER)
    start = draw_latents(SEEDS, (2,), HIGH, torch.zeros((), dtype=torch.float64))
    exact = sample(model, start, polynomial(301, LOW, HIGH), solver=SOLVER)
    schedules = {
        "uniform": time_uniform(STEPS + 1, **ends),
        "log-SNR": log_snr(STEPS + 1, **ends),
        "found": found.sigmas,
    }
    panels = {"300 steps": exact}
    panels |= {name: sample(model, start, s, solver=SOLVER) for name, s in schedules.items()}

    def draw(figure: Any) -> None:
        figure.suptitle("5 steps, three schedules", fontsize=TITLE, x=0.63)
        row = figure.subplots(1, 4, sharex=True, sharey=True)
        for axes, (name, points) in zip(row, panels.items(), strict=True):
            axes.scatter(*points.T, s=3, color=BLUE, linewidths=0)
            axes.set_title(name, fontsize=TITLE, loc="center")
            axes.set_aspect("equal")
            axes.axis("off")
            error = float((points - exact).norm(dim=1).mean())
            words = "exact" if points is exact else f"error {error:.2f}"
            place = {"transform": axes.transAxes, "ha": "center", "va": "top", "fontsize": TEXT}
            axes.text(0.5, -0.02, words, **place)

    save("gits-sampling", draw)


if __name__ == "__main__":
    main()
