from __future__ import annotations

import math

import pytest
import torch
from gits_sampling.end_points import (
    EndPoints,
    end_errors,
    held_out,
    paired_gain,
    training_points,
)
from gits_sampling.fit import end_error
from gits_sampling.latents import draw_latents
from gits_sampling.models import GaussianMixtureDenoiser, digits_gauss10
from gits_sampling.refine import (
    descend,
    from_shares,
    gives_gradient,
    refine,
    search,
    to_shares,
)
from gits_sampling.schedule import Schedule
from gits_sampling.sigmas import log_snr, polynomial
from gits_sampling.warming import warm_up
from hypothesis import given
from hypothesis import strategies as st

DOUBLE = torch.zeros((), dtype=torch.float64)
RANGE = {"sigma_min": 0.002, "sigma_max": 80.0, "shape": (1, 8, 8)}
SMALL = {"samples": 8, "held_out": 48, "points": 31, "like": DOUBLE}


@pytest.fixture(scope="module")
def model():
    return digits_gauss10()


@pytest.fixture(scope="module")
def warm(model):
    return warm_up(model, **RANGE, **SMALL)


@pytest.fixture(scope="module")
def train(model, warm):
    return training_points(model, warm, 32)


def poly(steps, **values):
    fixed = {"nfe": steps, "solver": "euler", "method": "polynomial 7"} | values
    return Schedule(sigmas=polynomial(steps + 1, 0.002, 80.0), **fixed)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_shares_and_sigmas_are_each_other_s_inverse(values):
    logits = torch.tensor(values, dtype=torch.float64)
    sigmas = from_shares(logits, 0.002, 80.0)
    assert sigmas[0] == 80.0
    assert sigmas[-1] == 0.002
    assert (sigmas.diff() < 0).all()
    torch.testing.assert_close(to_shares(sigmas), logits.log_softmax(0), rtol=1e-7, atol=1e-7)


def test_gradient_through_the_solver_is_that_of_differences(model, train):
    logits = to_shares(polynomial(5, 0.002, 80.0))
    few = EndPoints(train.latents[:3], train.ends[:3])

    def ends(values):
        from gits_sampling.solvers import sample

        return sample(model, few.latents, from_shares(values, 0.002, 80.0), solver="dpmpp")

    assert torch.autograd.gradcheck(ends, (logits.requires_grad_(),), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["gradient", "search"])
def test_a_poor_schedule_is_refined(model, warm, train, method):
    """On 7.2's model B the paper's costs lose to the best fixed schedule; this wins by far."""
    start = poly(5, order=1)
    found = refine(model, warm, start, train=train, method=method, iterations=30, rate=0.2)
    about = found.details["refinement"]
    assert (found.method, about["result"], found.nfe, found.order) == ("refined", "gain", 5, 1)
    assert (found.sigmas[0], found.sigmas[-1]) == (80.0, 0.002)
    before, after = (end_error(model, warm, s.sigmas, solver="euler") for s in (start, found))
    assert about["held_out"]["before"] == pytest.approx(before)
    assert about["held_out"]["after"] == pytest.approx(after)
    assert after < 0.75 * before
    # latents that neither trained nor decided
    other = warm_up(model, **RANGE, **(SMALL | {"seed": 77, "samples": 1}))
    assert end_error(model, other, found.sigmas, solver="euler") < 0.8 * before
    assert about["from"]["method"] == "polynomial 7"
    assert about["from"]["sigmas"] == start.sigmas.tolist()


def test_two_call_solvers_keep_their_calls(model, warm, train):
    found = refine(model, warm, poly(3, nfe=6, solver="heun"), train=train, iterations=10, rate=0.2)
    assert (found.method, found.steps, found.nfe) == ("refined", 3, 6)


def test_a_gain_of_nearly_nothing_is_none_however_certain(model, warm, train):
    start = poly(4)
    found = refine(model, warm, start, train=train, iterations=1, rate=1e-6)
    about = found.details["refinement"]["train"]
    assert about["after"] < about["before"]
    assert torch.equal(found.sigmas, start.sigmas)
    assert (found.method, found.details["refinement"]["result"]) == ("polynomial 7", "no gain")


def test_training_alone_does_not_decide(model, warm, train):
    """Trained towards wrong ends, the new schedule is better there and worse in truth."""
    wrong = EndPoints(train.latents, train.latents / 80)
    start = refine(model, warm, poly(4), train=train, iterations=15, rate=0.2)
    found = refine(model, warm, start, train=wrong, iterations=15, rate=0.2)
    about = found.details["refinement"]
    assert about["train"]["after"] < about["train"]["before"]
    assert about["held_out"]["after"] > about["held_out"]["before"]
    assert about["result"] == "no gain"
    assert torch.equal(found.sigmas, start.sigmas)


def test_of_one_gaussian_the_training_falls_towards_the_exact_end(model):
    gauss = GaussianMixtureDenoiser(torch.zeros(1, 3), torch.tensor([[1.0, 0.1, 4.0]]).diag_embed())
    latents = draw_latents(range(16), (3,), 80.0, DOUBLE)
    points = EndPoints(latents, gauss.solution(latents, 80.0, 0.002))
    start = log_snr(5, 0.002, 80.0)
    before = end_errors(gauss, points, start, solver="euler").mean()
    for sigmas, _ in (
        descend(gauss, points, start, iterations=30, rate=0.2, solver="euler"),
        search(gauss, points, start, sweeps=15, solver="euler"),
    ):
        assert end_errors(gauss, points, sigmas, solver="euler").mean() < 0.75 * before


def test_models_without_gradients_are_searched(model, warm, train):
    @torch.no_grad()
    def closed(x, sigma):
        return model(x, sigma)

    assert not gives_gradient(closed, train, warm.grids["polynomial"])
    found = refine(closed, warm, poly(3), train=train, iterations=3)
    assert found.details["refinement"]["method"] == "search"


def test_parameters_get_no_gradients(warm, train):
    net = torch.nn.Conv2d(1, 1, 3, padding=1).double()
    found = refine(lambda x, s: net(x / (1 + s)), warm, poly(3), train=train, iterations=2)
    assert found.details["refinement"]["method"] == "gradient"
    assert net.weight.grad is None


def test_training_points_are_new_and_do_not_depend_on_batches(model, warm, train):
    again = training_points(model, warm, 5, batch=2)
    torch.testing.assert_close(again.latents, train.latents[:5])
    torch.testing.assert_close(again.ends, train.ends[:5], rtol=1e-9, atol=1e-9)
    together = torch.cat([train.latents, held_out(warm).latents]).flatten(1)
    assert len(together.unique(dim=0)) == len(together)
    # the same reference as that of the held-out samples
    same = warm_up(model, **RANGE, **(SMALL | {"samples": 1}))
    assert torch.equal(same.ends, warm.ends)


def test_noise_is_that_of_the_paired_difference():
    before, difference = torch.rand(50) * 100, torch.randn(50) * 0.1 + 0.1
    gain = paired_gain(before, before - difference)
    assert gain.noise == pytest.approx(float(difference.double().std()) / math.sqrt(50), rel=1e-3)
    assert gain.beyond(1.64)
    assert not paired_gain(before, before).beyond(0.0)
    assert not paired_gain(before, before + difference).beyond(0.0)
    assert not paired_gain(before, before * 0.9999).beyond(1.64)


@pytest.mark.parametrize(
    "bad", [{"method": "guess"}, {"iterations": 0}, {"rate": 0.0}, {"noise": -1.0}, {"batch": 0}]
)
def test_arguments_out_of_range(model, warm, train, bad):
    with pytest.raises(ValueError, match="must be"):
        refine(model, warm, poly(3), train=train, **bad)


def test_other_ends_and_a_warm_up_without_held_out_samples(model, warm, train):
    other = Schedule(sigmas=[80.0, 1.0, 0.0], nfe=2, solver="euler")
    with pytest.raises(ValueError, match=r"from the warm-up's sigma 80 to 0\.002, got 80 to 0"):
        refine(model, warm, other, train=train)
    bare = warm_up(model, **RANGE, **(SMALL | {"samples": 1, "held_out": 0}))
    with pytest.raises(ValueError, match="held-out samples, got held_out=0"):
        refine(model, bare, poly(3), train=train)
    with pytest.raises(ValueError, match="samples must be >= 1"):
        training_points(model, warm, 0)
    with pytest.raises(ValueError, match=r"must both be \(M, ...\)"):
        EndPoints(train.latents, train.ends[:3])
    with pytest.raises(ValueError, match=r"errors must be \(M,\)"):
        paired_gain(torch.zeros(3), torch.zeros(2))
