from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from gits_sampling.diffusers_schedulers import (  # noqa: E402
    SUPPORTED,
    GITSIPNDMScheduler,
    to_diffusers,
)
from gits_sampling.solvers import sample  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array_")  # diffusers' own

VARIANCE = 0.3
SIGMAS = [12.0, 6.0, 2.0, 0.9, 0.3, 0.05]
VP = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def exact(x, sigma):
    return VARIANCE / (VARIANCE + torch.as_tensor(sigma).double() ** 2) * x


def make(name, **options):
    if name == "GITSIPNDMScheduler":
        return GITSIPNDMScheduler(**VP, **options)
    kind = getattr(diffusers, name)
    vp = VP if not name.startswith(("EDM", "Flow")) else {}
    return kind(**vp, **options)


def level_of(scheduler, timestep, index):
    """Return the noise level that a network would read off the timestep."""
    name = type(scheduler).__name__
    if name.startswith("EDM"):
        return float(torch.exp(4 * timestep.double()))
    if name.startswith("Flow"):
        t = float(timestep) / scheduler.config.num_train_timesteps
        return t / (1 - t)
    table = scheduler.alphas_cumprod.double()
    logs = 0.5 * ((1 - table) / table).log()
    low = min(int(timestep), len(table) - 2)
    return float(torch.lerp(logs[low], logs[low + 1], float(timestep) - low).exp())


def run(scheduler, noise, *, prediction="epsilon"):
    """Sample Gaussian data through a scheduler, as a pipeline does."""
    scheduler.set_timesteps(50, device="cpu")  # what a pipeline asks for counts no more
    name = type(scheduler).__name__
    first = float(SIGMAS[0])
    if name.startswith("Flow"):
        x = noise * first / (1 + first)
    elif name in ("EulerDiscreteScheduler", "EDMEulerScheduler", "HeunDiscreteScheduler") or (
        name in ("GITSIPNDMScheduler", "EDMDPMSolverMultistepScheduler")
    ):
        x = noise * first
    else:
        x = noise * first / (1 + first**2) ** 0.5
    calls = 0
    for index, timestep in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, timestep) if "Flow" not in name else x
        level = level_of(scheduler, timestep, index)
        if "Flow" in name:
            clean = exact(x * (1 + level), level)
            output = (x - clean / (1 + level)) / (level / (1 + level)) - clean
        elif name.startswith("EDM"):
            data = 0.25
            energy = level**2 + data
            state = seen * energy**0.5
            output = (exact(state, level) - data / energy * state) * energy**0.5 / (level * 0.5)
        else:
            state = seen * (1 + level**2) ** 0.5
            clean = exact(state, level)
            output = (state - clean) / level
            if prediction == "v_prediction":
                output = (output - level * clean) / (1 + level**2) ** 0.5
        x = scheduler.step(output, timestep, x, return_dict=False)[0]
        calls += 1
    last = SIGMAS[-1]
    if "Flow" in name:
        x = x * (1 + last)
    elif name in ("DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler") or (
        name in ("DEISMultistepScheduler", "DPMSolverSinglestepScheduler")
    ):
        x = x * (1 + last**2) ** 0.5
    return x, calls


@pytest.fixture
def noise():
    return torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "options", "ours"),
    [
        ("EulerDiscreteScheduler", {}, {"solver": "euler"}),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}, {"solver": "euler"}),
        ("DDIMScheduler", {"clip_sample": False}, {"solver": "euler"}),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {"solver": "euler"}),
        ("EDMEulerScheduler", {}, {"solver": "euler"}),
        ("GITSIPNDMScheduler", {}, {"solver": "ipndm"}),
        ("DPMSolverMultistepScheduler", {"solver_order": 2}, {"solver": "dpmpp", "order": 2}),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, {"solver": "dpmpp", "order": 3}),
        ("EDMDPMSolverMultistepScheduler", {"solver_order": 2}, {"solver": "dpmpp", "order": 2}),
        ("UniPCMultistepScheduler", {"solver_order": 2}, {"solver": "unipc", "order": 2}),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_a_scheduler_samples_like_our_solver(name, options, ours, noise):
    prediction = options.get("prediction_type", "epsilon")
    found, calls = run(to_diffusers(SIGMAS, make(name, **options)), noise, prediction=prediction)
    expected = sample(exact, noise * SIGMAS[0], torch.tensor(SIGMAS).double(), **ours)
    assert calls == len(SIGMAS) - 1
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    "name", ["DEISMultistepScheduler", "DPMSolverSinglestepScheduler", "HeunDiscreteScheduler"]
)
def test_a_scheduler_with_a_solver_of_its_own_comes_near(name, noise):
    found, _ = run(to_diffusers(SIGMAS, make(name)), noise)
    end = (VARIANCE + SIGMAS[-1] ** 2) / (VARIANCE + SIGMAS[0] ** 2)
    truth = noise * SIGMAS[0] * end**0.5
    euler = sample(exact, noise * SIGMAS[0], torch.tensor(SIGMAS).double(), solver="euler")
    assert (found - truth).norm() < 0.8 * (euler - truth).norm()


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_supported_scheduler_takes_the_schedule(name):
    scheduler = make(name)
    fixed = to_diffusers(SIGMAS, scheduler)
    for asked in (50, 7):
        fixed.set_timesteps(asked, device="cpu")
        steps = len(SIGMAS) - 1
        assert len(fixed.timesteps) == (2 * steps - 1 if name.startswith("Heun") else steps)
        assert (fixed.timesteps.double().diff() <= 0).all()
    assert isinstance(fixed, type(scheduler))
    assert dict(fixed.config)["num_train_timesteps"] == scheduler.config.num_train_timesteps
    assert not hasattr(scheduler, "fixed_sigmas")


@pytest.mark.parametrize(
    ("sigmas", "name", "message"),
    [
        ([1.0], "EulerDiscreteScheduler", "2 or more decreasing"),
        ([1.0, 2.0], "EulerDiscreteScheduler", "2 or more decreasing"),
        ([1.0, 1.0, 0.5], "EulerDiscreteScheduler", "2 or more decreasing"),
        ([2.0, 1.0, 0.5], "PNDMScheduler", "PNDMScheduler takes no schedule"),
        ([2.0, 1.0, 0.5], "IPNDMScheduler", "GITSIPNDMScheduler is iPNDM"),
        ([2.0, 1.9999, 0.5], "LCMScheduler", "equal"),
    ],
)
def test_what_cannot_be_used(sigmas, name, message):
    options = {} if name == "IPNDMScheduler" else VP
    with pytest.raises(ValueError, match=message):
        to_diffusers(sigmas, getattr(diffusers, name)(**options))


def test_ddim_with_noise_is_refused(noise):
    fixed = to_diffusers(SIGMAS, make("DDIMScheduler"))
    fixed.set_timesteps(5)
    with pytest.raises(ValueError, match="eta must be 0"):
        fixed.step(noise, fixed.timesteps[0], noise, eta=1.0)
