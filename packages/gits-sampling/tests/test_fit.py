from __future__ import annotations

import pytest
import torch
from gits_sampling.end_points import training_points
from gits_sampling.fit import candidates, end_error, fit_schedule
from gits_sampling.latents import draw_latents
from gits_sampling.models import digits_empirical, digits_gauss10
from gits_sampling.path import optimal_path
from gits_sampling.solvers import network_calls
from gits_sampling.warming import fixed_schedules, warm_up

RANGE = {"sigma_min": 0.002, "sigma_max": 80.0, "shape": (1, 8, 8)}
DOUBLE = torch.zeros((), dtype=torch.float64)


@pytest.fixture(scope="module")
def model():
    return digits_empirical()


@pytest.fixture(scope="module")
def warm(model):
    return warm_up(
        model,
        **RANGE,
        grids=("polynomial", "time_uniform"),
        metrics=("dev", "l2"),
        samples=48,
        held_out=48,
        points=41,
        like=DOUBLE,
    )


def test_batches_change_nothing(model, warm):
    again = warm_up(
        model,
        **RANGE,
        grids=("polynomial",),
        metrics=("dev",),
        samples=48,
        held_out=48,
        points=41,
        like=DOUBLE,
        batch=7,
    )
    key = ("polynomial", "dev")
    torch.testing.assert_close(again.costs[key], warm.costs[key], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(again.ends, warm.ends, rtol=1e-9, atol=1e-9)
    assert again.about["fingerprint"] == warm.about["fingerprint"]


def test_latents_follow_from_their_own_seeds():
    three = draw_latents([5, 6, 7], (2, 3), 80.0, DOUBLE)
    torch.testing.assert_close(three[1:2], draw_latents([6], (2, 3), 80.0, DOUBLE))
    assert three.dtype == torch.float64
    assert 40 < three.std() < 160


def test_latents_may_start_from_noised_samples():
    clean = torch.tensor([[0.0, 0.0], [100.0, 100.0]], dtype=torch.float64)
    found = draw_latents(range(200), (2,), 0.5, DOUBLE, clean)
    assert {int(row.round(decimals=-2)[0]) for row in found} == {0, 100}
    assert 0.4 < (found - found.round(decimals=-2)).std() < 0.6
    torch.testing.assert_close(found[7:8], draw_latents([7], (2,), 0.5, DOUBLE, clean))
    with pytest.raises(ValueError, match=r"clean must be \(M, 2,\), got \(2, 3\)"):
        draw_latents([0], (2,), 0.5, DOUBLE, torch.zeros(2, 3))


def test_a_partial_start_has_its_own_schedule_never_worse_than_the_usual_ones():
    model = digits_gauss10()
    clean = model.means.reshape(-1, 1, 8, 8)
    part = RANGE | {"sigma_max": 1.5}
    warm = warm_up(
        model,
        **part,
        samples=32,
        held_out=32,
        points=31,
        metrics=("dev", "l2"),
        like=DOUBLE,
        clean=clean,
    )
    near = (warm.latents[:, None] - clean[None]).flatten(2).norm(dim=2).min(1).values
    assert torch.all(near < 1.5 * 64**0.5 * 1.5)
    schedule = fit_schedule(model, **part, nfe=5, warm=warm, refine=True)
    assert schedule.sigmas[0] == 1.5
    assert schedule.details["start"] == "noised samples"
    usual = fixed_schedules(5, 0.002, 1.5)
    ours = end_error(model, warm, schedule.sigmas, solver="ipndm")
    assert all(ours <= 1.001 * end_error(model, warm, s, solver="ipndm") for s in usual.values())
    train = training_points(model, warm, 8)
    near = (train.latents[:, None] - clean[None]).flatten(2).norm(dim=2).min(1).values
    assert torch.all(near < 1.5 * 64**0.5 * 1.5)


def test_one_coefficient_is_the_paper_s_path(model, warm):
    schedule = fit_schedule(model, **RANGE, nfe=6, coeff=1.0, warm=warm)
    path = optimal_path(warm.costs["polynomial", "dev"], 6, 1.0)
    assert schedule.indices == tuple(path.tolist())
    torch.testing.assert_close(schedule.sigmas, warm.grids["polynomial"][path])
    assert (schedule.coeff, schedule.metric, schedule.nfe, schedule.steps) == (1.0, "dev", 6, 6)


def test_auto_takes_the_candidate_with_the_least_error(model, warm):
    schedule = fit_schedule(model, **RANGE, nfe=6, solver="euler", warm=warm)
    errors = schedule.details["errors"]
    found = end_error(model, warm, schedule.sigmas, solver="euler")
    assert found == pytest.approx(min(errors.values()))
    assert {"polynomial 7", "log_snr", "time_uniform 1", "time_uniform 2"} <= errors.keys()
    # the effect of the method on these digits (specification 7.2: 0.46 of poly7 at 1.0)
    assert found <= 0.6 * errors["polynomial 7"]


def test_where_nothing_is_gained_auto_says_so(model, warm, monkeypatch):
    """Every path costs the same here, so that paths are bad and a fixed schedule wins."""
    blind = {key: torch.zeros_like(cost) for key, cost in warm.costs.items()}
    flat = type(warm)(warm.grids, blind, warm.latents, warm.ends, warm.about)
    schedule = fit_schedule(model, **RANGE, nfe=6, solver="euler", warm=flat)
    assert schedule.method in fixed_schedules(6, 0.002, 80.0)
    assert schedule.indices is None
    assert schedule.coeff is None


def test_two_call_solvers_make_half_the_steps(model, warm):
    schedule = fit_schedule(model, **RANGE, nfe=6, solver="heun", coeff=1.0, warm=warm)
    assert schedule.steps == 3
    assert network_calls("heun", schedule.steps) == 6
    with pytest.raises(ValueError, match="nfe must suit heun"):
        fit_schedule(model, **RANGE, nfe=5, solver="heun", coeff=1.0, warm=warm)


def test_every_candidate_spans_the_range(model, warm):
    tried = candidates(model, warm, 4, coeffs=(0.9, 1.1), solver="euler")
    assert [c.error for c in tried] == sorted(c.error for c in tried)
    for candidate in tried:
        assert candidate.sigmas[0] == 80
        assert candidate.sigmas[-1] == 0.002
        assert len(candidate.sigmas) == 5


@pytest.mark.parametrize(
    "bad", [{"samples": 0}, {"batch": 0}, {"held_out": -1}, {"points": 1}, {"sigma_min": 0}]
)
def test_numbers_out_of_range(model, bad):
    with pytest.raises(ValueError, match="must be"):
        warm_up(model, **(RANGE | {"samples": 4, "held_out": 0} | bad))


def test_ranges_without_a_variance_preserving_time(model):
    """Rectified flows and short ranges have none; the other grids and schedules remain."""
    schedule = fit_schedule(
        model,
        sigma_min=0.5,
        sigma_max=20.0,
        shape=(1, 8, 8),
        nfe=3,
        samples=2,
        held_out=2,
        points=9,
        like=DOUBLE,
    )
    assert schedule.details["errors"].keys() >= {"polynomial 7", "log_snr"}
    assert not any("time_uniform" in name for name in schedule.details["errors"])


def test_what_dpmpp_extrapolates_is_kept_with_the_schedule(model, warm):
    given = {"nfe": 4, "solver": "dpmpp", "order": 2, "warm": warm, "coeff": "auto"}
    data = fit_schedule(model, **RANGE, **given)
    noise = fit_schedule(model, **RANGE, **given, prediction="noise")
    assert (data.prediction, noise.prediction) == ("data", "noise")
    assert data.details["errors"] != noise.details["errors"]
    name = min(noise.details["errors"], key=noise.details["errors"].__getitem__)
    options = {k: v for k, v in noise.solver_options.items() if k != "denoise_to_zero"}
    again = end_error(model, warm, noise.sigmas, **options)
    assert noise.details["errors"][name] == pytest.approx(again, rel=1e-9)
    with pytest.raises(ValueError, match="thresholding must be off"):
        fit_schedule(model, **RANGE, nfe=4, solver="ipndm", thresholding=True)


def test_refinement_and_first_step_on_request(model, warm):
    from gits_sampling.end_points import training_points

    train = training_points(model, warm, 16)
    given = {"nfe": 3, "solver": "euler", "warm": warm, "coeff": 1.0, "train": train}
    plain = fit_schedule(model, **RANGE, **given)
    moved = fit_schedule(model, **RANGE, **given, refine={"iterations": 15})
    assert plain.details == {}
    about = moved.details["refinement"]
    assert about["result"] == "gain"
    assert moved.method == "refined"
    assert about["held_out"]["after"] < about["held_out"]["before"]
    assert about["from"]["sigmas"] == plain.sigmas.tolist()
    both = fit_schedule(model, **RANGE, **given, afs="auto", refine={"iterations": 2})
    assert {"afs", "refinement"} <= both.details.keys()
    assert both.nfe == 3
    assert both.steps == 3 + both.afs


def test_what_a_warm_up_lacks_is_said(model):
    small = {"samples": 2, "held_out": 0, "points": 9, "like": DOUBLE}
    bare = warm_up(model, **RANGE, **small)
    with pytest.raises(ValueError, match="held_out must be >= 1, got 0"):
        fit_schedule(model, **RANGE, nfe=3, warm=bare)
    with pytest.raises(ValueError, match="metric must be one of the warm-up's, dev; got 'l2'"):
        fit_schedule(model, **RANGE, nfe=3, warm=bare, coeff=1.0, metric="l2")
