"""A stock diffusers pipeline, saved as a folder, samples through a fitted schedule."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from gits_sampling import fit_schedule, sample  # noqa: E402
from gits_sampling.diffusers_schedulers import SUPPORTED, GITSIPNDMScheduler  # noqa: E402
from gits_sampling.loading import load_denoiser  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array_")  # diffusers' own

NFE = 5
SOLVERS = {  # scheduler, its options: ours
    "EulerDiscreteScheduler": ({}, {"solver": "euler"}),
    "DPMSolverMultistepScheduler": ({"solver_order": 2}, {"solver": "dpmpp", "order": 2}),
    "UniPCMultistepScheduler": ({"solver_order": 2}, {"solver": "unipc", "order": 2}),
    "DEISMultistepScheduler": ({"solver_order": 1}, {"solver": "deis", "order": 1}),
    "DDIMScheduler": ({"clip_sample": False}, {"solver": "euler"}),
    "GITSIPNDMScheduler": ({}, {"solver": "ipndm"}),
}
VP_FRAME = ("DPMSolverMultistep", "UniPC", "DEIS", "DDIM")  # x / sqrt(1 + sigma^2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A DDPM pipeline of a few thousand parameters, with weights that make its outputs vary."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    path = tmp_path_factory.mktemp("models") / "ddpm"
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(clip_sample=False)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def schedule(folder):
    loaded = load_denoiser(folder)
    return fit_schedule(
        loaded.denoiser,
        sigma_min=loaded.sigma_min,
        sigma_max=loaded.sigma_max,
        shape=loaded.shape,
        nfe=NFE,
        solver="euler",
        coeff=1.15,
        points=13,
        samples=8,
    )


def pipeline(folder, schedule, name, **options):
    """Return the stock pipeline with a scheduler that keeps the schedule."""
    pipe = diffusers.DDPMPipeline.from_pretrained(folder)
    kind = GITSIPNDMScheduler if name == "GITSIPNDMScheduler" else getattr(diffusers, name)
    wanted = {} if "clip_sample" in options else {"prediction_type": "epsilon"}
    pipe.scheduler = schedule.to_diffusers(
        kind.from_config(pipe.scheduler.config, **wanted, **options)
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, noise, steps=50):
    """Sample as a pipeline's loop does, and return the end in the variance-exploding frame."""
    scheduler, name = pipe.scheduler, type(pipe.scheduler).__name__
    scheduler.set_timesteps(steps)
    first, last = scheduler.fixed_sigmas[[0, -1]]
    scaled = name.startswith(VP_FRAME)
    x = noise * first / ((1 + first**2) ** 0.5 if scaled else 1)
    calls = 0
    with torch.no_grad():
        for t in scheduler.timesteps:
            out = pipe.unet(scheduler.scale_model_input(x, t).float(), t).sample
            x, calls = scheduler.step(out, t, x, return_dict=False)[0], calls + 1
    return x * ((1 + last**2) ** 0.5 if scaled else 1), calls


@pytest.fixture(scope="module")
def noise():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_stock_pipeline_samples_as_our_solver(folder, schedule, noise, name):
    options, ours = SOLVERS[name]
    end, calls = run(pipeline(folder, schedule, name, **options), noise)
    denoiser = load_denoiser(folder).denoiser
    start = noise * schedule.sigmas[0].float()
    expected = sample(denoiser, start, schedule.sigmas, **ours)
    assert calls == NFE
    plain = sample(denoiser, start, schedule.sigmas, solver="heun")
    scale = (plain - expected).abs().max()
    torch.testing.assert_close(end, expected, rtol=1e-3, atol=0.02 * float(scale))


@pytest.mark.parametrize("name", SOLVERS)
def test_the_schedule_comes_back_with_the_saved_pipeline(folder, schedule, noise, name, tmp_path):
    pipe = pipeline(folder, schedule, name, **SOLVERS[name][0])
    pipe.save_pretrained(tmp_path / "fast")
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path / "fast")
    assert type(again.scheduler) is type(pipe.scheduler)
    np.testing.assert_array_equal(again.scheduler.fixed_sigmas, schedule.sigmas.numpy())
    torch.testing.assert_close(run(again, noise)[0], run(pipe, noise)[0], rtol=0, atol=0)


def test_the_pipeline_s_own_call(folder, schedule, noise):
    """DDPMPipeline begins with unit noise and scales nothing: a scheduler of its frame."""
    pipe = pipeline(folder, schedule, "DPMSolverMultistepScheduler", solver_order=2)
    seen = []
    pipe.unet.register_forward_pre_hook(lambda module, inputs: seen.append(float(inputs[1])))
    generator = torch.Generator().manual_seed(1)  # that of the noise
    images = pipe(2, generator, num_inference_steps=100, output_type="np").images
    np.testing.assert_allclose(seen, pipe.scheduler.timesteps.numpy(), rtol=1e-6)
    assert len(seen) == NFE
    expected = (run(pipe, noise)[0] / 2 + 0.5).clamp(0, 1)
    np.testing.assert_allclose(images, expected.permute(0, 2, 3, 1), atol=1e-3)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_stock_latent_pipeline_runs_with_each(folder, schedule, noise, name):
    """LDMPipeline scales noise and inputs as each scheduler asks."""
    torch.manual_seed(0)
    vqvae = diffusers.VQModel(
        in_channels=1, out_channels=1, latent_channels=1, block_out_channels=(8,), norm_num_groups=4
    ).eval()
    fast = pipeline(folder, schedule, name, **SOLVERS[name][0])
    pipe = diffusers.LDMPipeline(vqvae, fast.unet, fast.scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    images = pipe(2, generator, num_inference_steps=100, output_type="np").images
    end, last = run(fast, noise)[0], float(schedule.sigmas[-1])
    latents = end / ((1 + last**2) ** 0.5 if name.startswith(VP_FRAME) else 1)
    with torch.no_grad():
        decoded = vqvae.decode(latents / vqvae.config.scaling_factor).sample
    expected = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(images, expected, atol=2e-3)
    assert images.std() > 0.01


def test_a_model_saved_with_a_schedule_is_the_same_model(folder, schedule, tmp_path):
    pipeline(folder, schedule, "EulerDiscreteScheduler").save_pretrained(tmp_path / "fast")
    loaded, before = load_denoiser(tmp_path / "fast"), load_denoiser(folder)
    assert loaded.fingerprint() == before.fingerprint()
    assert len(loaded.own(9)) == 9  # of the scheduler without the schedule


@pytest.mark.parametrize("how", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DDIMScheduler"])
def test_a_copy_keeps_the_schedule(folder, schedule, name, how):
    scheduler = pipeline(folder, schedule, name, **SOLVERS[name][0]).scheduler
    np.testing.assert_array_equal(how(scheduler).fixed_sigmas, scheduler.fixed_sigmas)


def test_another_schedule_takes_the_place_of_the_first(folder, schedule):
    first = pipeline(folder, schedule, "EulerDiscreteScheduler").scheduler
    levels = schedule.sigmas[::2]
    from gits_sampling import to_diffusers

    second = to_diffusers(levels, first)
    np.testing.assert_array_equal(second.fixed_sigmas, levels.numpy())
    np.testing.assert_array_equal(first.fixed_sigmas, schedule.sigmas.numpy())


@pytest.mark.parametrize("levels", [None, [], [1.0, 2.0], [3.0, float("nan"), 1.0]])
def test_a_broken_saved_schedule_is_refused(folder, schedule, levels):
    scheduler = pipeline(folder, schedule, "EulerDiscreteScheduler").scheduler
    scheduler.register_to_config(_gits_sigmas=levels)
    with pytest.raises(ValueError, match="2 or more decreasing"):
        scheduler.set_timesteps(5)


def test_the_module_of_fixed_schedulers_has_nothing_else():
    from gits_sampling import fixed_schedulers

    assert all(getattr(fixed_schedulers, name).__name__ == name for name in SUPPORTED)
    with pytest.raises(AttributeError, match="no attribute PNDMScheduler"):
        fixed_schedulers.PNDMScheduler  # noqa: B018
