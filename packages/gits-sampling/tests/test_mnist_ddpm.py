"""A real trained network (epsilon prediction, 1000 steps) through our schedules and solvers."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gits_sampling.comparison import compare_schedules
from gits_sampling.end_points import end_points
from gits_sampling.latents import draw_latents
from gits_sampling.sigmas import discrete, polynomial
from gits_sampling.solvers import sample

sys.path.append(str(Path(__file__).parents[1] / "reproduce"))
import mnist_ddpm
from mnist_ddpm import SIGMAS, denoiser


@pytest.fixture(scope="module")
def arrays(shared_files):
    with np.load(shared_files / "parity/gits-sampling/mnist_ddpm.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def load(shared_files, name):
    return mnist_ddpm.load(shared_files / "data/mnist-ddpm-tiny", name)


@pytest.mark.parametrize(("name", "key"), [("mnist", "eps"), ("fashion", "eps_fashion")])
def test_the_network_is_theirs(shared_files, arrays, name, key):
    with torch.no_grad():
        out = load(shared_files, name)(arrays["x"], arrays["t"][:, 0])
    torch.testing.assert_close(out, arrays[key], rtol=1e-4, atol=1e-4)


def test_schedule_of_its_training_steps(arrays):
    ours = discrete(21, SIGMAS, rounded=True)
    torch.testing.assert_close(ours.float(), arrays["sigma_20"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("solver", "atol"), [("euler", 1e-2), ("ipndm", 1e-3)])
def test_samples_as_the_reference(shared_files, arrays, solver, atol):
    """Values reach 43. Euler's drift amplifies float32 rounding: float64 is 0.008 from theirs."""
    sigmas = arrays["sigma_20"].double()
    denoise = denoiser(load(shared_files, "mnist"))
    end = sample(denoise, arrays["latents"] * sigmas[0], sigmas, solver=solver)
    assert end.dtype == torch.float32
    expected = arrays[f"out_{solver}"]
    torch.testing.assert_close(end, expected, rtol=0, atol=atol)
    assert (end - expected).norm() < 1e-4 * expected.norm()


def test_where_paths_gain_nothing_the_comparison_says_so(shared_files):
    """The negative case of specification 7.2 C in its setting: 24 warm-up samples, 16 latents.

    The network drifts, so the size of the loss hangs on the warm-up: 8 samples gave another path,
    17.1 against 18.9 for the best fixed schedule, which is within noise and no gain either.
    """
    low, high = SIGMAS[0].item(), SIGMAS[-1].item()
    model = denoiser(load(shared_files, "fashion"))
    latents = draw_latents(range(16), (1, 28, 28), high, torch.zeros(()))
    fine = polynomial(121, low, high)
    compared = compare_schedules(
        model,
        sigma_min=low,
        sigma_max=high,
        shape=(1, 28, 28),
        nfes=(6,),
        solvers=("euler",),
        schedules=("polynomial 7", "time_uniform 1", "time_uniform 2", "gits 1.0"),
        evaluation=end_points(model, latents, fine, solver="ipndm", order=2),
        grids=("polynomial",),
        metrics=("dev",),
        samples=24,
        held_out=0,
    )
    errors = {entry.schedule: entry.error for entry in compared.entries}
    (verdict,) = compared.verdicts
    assert verdict.result == "no gain"
    assert errors["gits 1.0"] > 2 * min(errors.values())
