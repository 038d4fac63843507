"""What solvers ask of their arguments and of the model: counts, gradients, messages."""

import math

import pytest
import torch
from gits_sampling.solvers import network_calls, sample, steps_for
from gits_sampling.stepping import ORDERS, dynamic_threshold
from hypothesis import given
from hypothesis import strategies as st

IRREGULAR = torch.tensor([80, 11, 3.9, 1.6, 0.57, 0.17, 0.002], dtype=torch.float64)
FORMS = [
    *((solver, {}) for solver in ORDERS),
    ("dpmpp", {"prediction": "noise"}),
    ("unipc", {"prediction": "noise", "variant": "bh1"}),
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(("solver", "options"), FORMS)
@pytest.mark.parametrize("afs", [False, True])
@pytest.mark.parametrize("end", ["sigma_min", "zero", "denoise"])
def test_calls_are_as_counted_and_finite(solver, options, afs, end):
    calls = []

    def denoise(x, at):
        calls.append(at)
        assert at.dtype == torch.float64
        assert at.ndim == 0
        return (x / (1 + at**2)).float()

    x = 80 * torch.randn(2, 3)
    sigmas = [*IRREGULAR[:-1].tolist(), 0.0] if end == "zero" else IRREGULAR
    last = end == "denoise"
    out = sample(denoise, x, sigmas, solver=solver, afs=afs, denoise_to_zero=last, **options)
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert len(calls) == network_calls(solver, 6, afs, last, ends_at_zero=end == "zero")
    assert min(calls) > 0


def test_no_graph_for_the_model_alone():
    model = torch.nn.Linear(3, 3)
    x = torch.randn(2, 3)
    assert not sample(lambda x, at: model(x), x, IRREGULAR).requires_grad
    sigmas = IRREGULAR.clone().requires_grad_()
    assert sample(lambda x, at: model(x), x, sigmas).requires_grad
    with torch.no_grad():
        assert not sample(lambda x, at: model(x), x, sigmas).requires_grad


@given(size=st.integers(1, 700), scale=st.floats(0.1, 5))
def test_dynamic_threshold_is_the_quantile_rule(size, scale):
    x = scale * torch.randn(3, size, dtype=torch.float64)
    s = x.abs().quantile(0.995, dim=1).clamp(min=1)[:, None]
    torch.testing.assert_close(dynamic_threshold(x), x.clamp(-s, s) / s)


@pytest.mark.parametrize(("solver", "options"), FORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite_names_step_and_sigma(solver, options, bad):
    def denoise(x, at):
        return torch.full_like(x, bad) if at <= 1.6 else x / 2

    with pytest.raises(ValueError, match=r"NaN or inf at step [23] \(sigma (1.6|0.955)") as error:
        sample(denoise, torch.ones(2, 3), IRREGULAR, solver=solver, **options)
    assert "\n" not in str(error.value)


def half(x, at):
    return x / 2


@pytest.mark.parametrize(
    ("sigmas", "options", "words"),
    [
        ([80, 1], {"solver": "rk45"}, "solver must be one of euler, heun.* got 'rk45'"),
        ([80, 1], {"order": 5}, "order of ipndm must be 1 to 4, got 5"),
        ([80, 1], {"order": 0}, "order of ipndm must be 1 to 4, got 0"),
        ([80, 1], {"solver": "heun", "order": 3}, "order of heun must be 2, got 3"),
        ([80, 1], {"afs": True}, "steps must be at least 2 with afs, got 1"),
        ([80], {}, r"sigmas must be \(N,\) with N >= 2, got shape \(1,\)"),
        ([[80, 1]], {}, r"got shape \(1, 2\)"),
        ([80, 1, 1], {}, "strictly decreasing .* got 1, 1 at 1"),
        ([1, 80], {}, "got 1, 80 at 0"),
        ([80, math.nan, 1], {}, "got 80, nan at 0"),
        ([math.inf, 80], {}, "finite.* got inf, 80 at 0"),
        ([80, 1, -1], {}, "got 1, -1 at 1"),
        ([80, 0], {"denoise_to_zero": True}, "denoise_to_zero must be off"),
        ([80, 1], {"prediction": "v"}, "prediction must be data or noise, got 'v'"),
        ([80, 1], {"variant": "bh3"}, "variant must be bh1 or bh2, got 'bh3'"),
        ([80, 1], {"thresholding": True}, "thresholding must be off but for dpmpp, unipc"),
        (
            [80, 1],
            {"solver": "dpmpp", "prediction": "noise", "thresholding": True},
            "thresholding needs prediction data, got noise",
        ),
        ([80, 1], {"solver": "dpm", "r": 0}, r"r must be in \(0, 1\], got 0"),
    ],
)
def test_bad_arguments(sigmas, options, words):
    with pytest.raises(ValueError, match=words) as error:
        sample(half, torch.ones(2, 3), sigmas, **options)
    assert "\n" not in str(error.value)


def test_bad_tensors():
    with pytest.raises(ValueError, match=r"x must be float \(B, ...\), got torch.int64"):
        sample(half, torch.ones(2, 3, dtype=torch.long), IRREGULAR)
    with pytest.raises(ValueError, match=r"x's shape \(2, 3\), got \(2,\)"):
        sample(lambda x, at: x[:, 0], torch.ones(2, 3), IRREGULAR)


def test_steps_for_is_the_inverse_of_network_calls():
    for solver in ORDERS:
        for afs in (False, True):
            for last in (False, True):
                for steps in range(1 + afs, 8):
                    calls = network_calls(solver, steps, afs, last)
                    assert steps_for(solver, calls, afs, last) == steps
    with pytest.raises(ValueError, match="two calls a step: expected 4 or 6, got 5"):
        steps_for("heun", 5)
    with pytest.raises(ValueError, match="nfe must be at least 2 for dpm, got 1"):
        steps_for("dpm", 1)
    with pytest.raises(ValueError, match="nfe must be at least 1 for ipndm, got 0"):
        steps_for("ipndm", 0)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        network_calls("ipndm", 0)
