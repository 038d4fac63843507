"""The inversion-free step: reference values, the two forms, equal prompts, the end."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_edits import ddcm_step
from multi_edits.ddcm import lcm_timesteps, to_epsilon, trailing_timesteps

CASES = (0, 1, 8, 15)


def step_of(values, case, alphas):
    """Return the reference's step with our function."""
    count, index, timestep, eta = values[f"{case}_meta"].tolist()
    times = values[f"timesteps_{int(count)}"].tolist()
    after = times[int(index) + 1] if index + 1 < count else int(timestep)
    return ddcm_step(
        *(values[f"{case}_{name}"] for name in ("x_t", "x_s", "eps_t", "eps_s", "x0")),
        alpha_bar=float(alphas[int(timestep)]),
        alpha_bar_next=float(alphas[after]),
        noise=values[f"{case}_noise"],
        eta=eta,
    )


@pytest.mark.parametrize("case", CASES)
def test_step_as_in_the_reference(parity, case):
    values = parity("ddcm")
    done = step_of(values, case, values["alphas_cumprod"])
    for name, ours in zip(("xt_prev", "xs_prev", "x0_t"), done, strict=True):
        torch.testing.assert_close(ours, values[f"{case}_out_{name}"], rtol=1e-6, atol=1e-5)


def test_every_step_of_the_reference(shared_files):
    import numpy as np

    with np.load(shared_files / "parity/multi-edits/ddcm_step.npz") as file:
        values = {name: torch.from_numpy(file[name]) for name in file.files}
    for case in range(int(values["count"])):
        done = step_of(values, case, values["alphas_cumprod"])
        for name, ours in zip(("xt_prev", "xs_prev", "x0_t"), done, strict=True):
            torch.testing.assert_close(ours, values[f"{case}_out_{name}"], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 5, 12, 15, 50])
def test_timesteps_of_a_consistency_model(parity, steps):
    assert lcm_timesteps(steps) == parity("ddcm")[f"timesteps_{steps}"].tolist()


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    alpha_bar=st.floats(0.01, 0.99),
    after=st.floats(0.01, 1.0),
    eta=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_both_forms_of_the_clean_estimate_agree(alpha_bar, after, eta):
    x, x_ref, eps, eps_ref, x0_ref, noise = draw(0, 6, 1, 4, 5, 5)
    signal, spread = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    consistent = (x_ref - signal * x0_ref) / spread
    x0 = (x - spread * (eps - eps_ref + consistent)) / signal
    sigma = math.sqrt(eta * (1 - after))
    direction = math.sqrt(max(0.0, 1 - after - sigma**2)) * (eps - eps_ref + consistent)
    done = ddcm_step(
        x,
        x_ref,
        eps,
        eps_ref,
        x0_ref,
        alpha_bar=alpha_bar,
        alpha_bar_next=after,
        noise=noise,
        eta=eta,
    )
    torch.testing.assert_close(done.x0, x0, rtol=1e-4, atol=1e-4)
    expected = math.sqrt(after) * x0 + direction + sigma * noise
    torch.testing.assert_close(done.edit, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_equal_latents_and_predictions_give_the_reference_exactly(eta):
    x, eps, x0, noise = draw(1, 4, 2, 4, 3, 3)
    done = ddcm_step(x, x, eps, eps, x0, alpha_bar=0.005, alpha_bar_next=0.3, noise=noise, eta=eta)
    assert torch.equal(done.x0, x0)
    assert torch.equal(done.edit, done.reference)


def test_half_precision_is_computed_in_float32():
    x, eps, x0, noise = draw(2, 4, 1, 4, 3, 3).half()
    done = ddcm_step(x, x, eps, -eps, x0, alpha_bar=0.005, alpha_bar_next=0.3, noise=noise)
    assert done.x0.dtype == torch.float32
    assert done.x0.isfinite().all()


def test_velocity_becomes_the_noise_it_was_made_of():
    x0, eps = draw(3, 2, 1, 4, 3, 3)
    a, s = math.sqrt(0.3), math.sqrt(0.7)
    x, v = a * x0 + s * eps, a * eps - s * x0
    torch.testing.assert_close(to_epsilon(v, x, 0.3, "v_prediction"), eps)
    assert torch.equal(to_epsilon(eps, x, 0.3), eps)
    with pytest.raises(ValueError, match="kind must be epsilon or v_prediction, got sample"):
        to_epsilon(v, x, 0.3, "sample")  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 2, 7, 15, 1000])
def test_trailing_timesteps_begin_with_pure_noise_and_fall(steps):
    times = trailing_timesteps(steps)
    assert times[0] == 999
    assert len(times) == steps
    assert all(a > b >= 0 for a, b in pairwise(times))


def test_wrong_numbers_are_named():
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="got 0"):
        ddcm_step(x, x, x, x, x, alpha_bar=0, alpha_bar_next=0.5, noise=x)
    with pytest.raises(ValueError, match=r"1\.\.50 .* got 51"):
        lcm_timesteps(51)
    with pytest.raises(ValueError, match=r"1\.\.1000, got 0"):
        trailing_timesteps(0)
