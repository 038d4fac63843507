from __future__ import annotations

import json

import pytest
import torch
from gits_sampling.comparison import EVALUATION, Comparison, compare_schedules
from gits_sampling.comparison_columns import SCHEDULES, columns, path_of, settings, taken
from gits_sampling.end_points import EndPoints, end_errors, end_points, training_points
from gits_sampling.fit import candidates
from gits_sampling.models import digits_gauss10
from gits_sampling.path import optimal_path
from gits_sampling.sigmas import ays, log_snr, polynomial, time_uniform
from gits_sampling.warming import warm_up

DOUBLE = torch.zeros((), dtype=torch.float64)
RANGE = {"sigma_min": 0.002, "sigma_max": 80.0, "shape": (1, 8, 8)}


@pytest.fixture(scope="module")
def model():
    return digits_gauss10()


@pytest.fixture(scope="module")
def warm(model):
    return warm_up(
        model,
        **RANGE,
        grids=("polynomial", "time_uniform"),
        metrics=("dev", "l2"),
        samples=16,
        held_out=32,
        points=31,
        like=DOUBLE,
    )


@pytest.fixture(scope="module")
def evaluation(model, warm):
    return training_points(model, warm, 40, stream=EVALUATION)


@pytest.fixture(scope="module")
def train(model, warm):
    return training_points(model, warm, 32)


@pytest.fixture(scope="module")
def compared(model, warm, evaluation, train):
    return compare_schedules(
        model,
        **RANGE,
        nfes=(4, 5),
        solvers=("euler", "heun", "dpmpp 2"),
        own=lambda n: polynomial(n, 0.002, 80.0, rho=3.0),
        schedules=(*SCHEDULES, "gits 0.9 l2"),
        coeffs=(0.9, 1.0, 1.1),
        warm=warm,
        train=train,
        evaluation=evaluation,
        refinement={"iterations": 10, "rate": 0.2},
    )


def entry(compared, solver, nfe, schedule):
    return next(
        e for e in compared.entries if (e.solver, e.nfe, e.schedule) == (solver, nfe, schedule)
    )


def test_errors_are_those_of_the_named_schedules(compared, model, warm, evaluation):
    grid = warm.grids["polynomial"]
    wanted = {
        "polynomial 7": polynomial(5, 0.002, 80.0),
        "log_snr": log_snr(5, 0.002, 80.0),
        "time_uniform 1": time_uniform(5, 0.002, 80.0),
        "time_uniform 2": time_uniform(5, 0.002, 80.0, 2.0),
        "own": polynomial(5, 0.002, 80.0, 3.0),
        "gits 1.0": grid[optimal_path(warm.costs["polynomial", "dev"], 4, 1.0)],
        "gits 1.15": grid[optimal_path(warm.costs["polynomial", "dev"], 4, 1.15)],
        "gits 0.9 l2": grid[optimal_path(warm.costs["polynomial", "l2"], 4, 0.9)],
        "auto": candidates(model, warm, 4, coeffs=(0.9, 1.0, 1.1), solver="dpmpp", order=2)[
            0
        ].sigmas,
    }
    for name, sigmas in wanted.items():
        found = entry(compared, "dpmpp", 4, name)
        torch.testing.assert_close(torch.tensor(found.sigmas, dtype=torch.float64), sigmas)
        error = end_errors(model, evaluation, sigmas, solver="dpmpp", order=2)
        assert found.error == pytest.approx(float(error.mean()))
        assert found.noise == pytest.approx(float(error.std()) / 40**0.5)
    assert {e.schedule for e in compared.entries} == {*wanted, "refined"}


def test_calls_are_counted(compared):
    assert {(e.solver, e.calls) for e in compared.entries if e.nfe == 4} == {
        ("euler", 4),
        ("heun", 4),
        ("dpmpp", 4),
    }
    assert len(entry(compared, "heun", 4, "auto").sigmas) == 3


def test_what_does_not_exist_is_left_out_with_its_reason(compared):
    assert any(line.startswith("heun, nfe 5: nfe must suit heun") for line in compared.left_out)
    assert sum(line.startswith("ays") for line in compared.left_out) == 3
    assert not any(e.solver == "heun" and e.nfe == 5 for e in compared.entries)


def test_the_best_column_is_marked(compared):
    for row in compared.table():
        solver, nfe = row["solver"].split()[0], row["nfe"]
        errors = {
            e.schedule: e.error for e in compared.entries if (e.solver, e.nfe) == (solver, nfe)
        }
        assert {k: row[k] for k in errors} == errors
        assert row["best"] == min(errors, key=errors.__getitem__)
        assert row["result"] in ("gain", "no gain")
    assert len(compared.table()) == 5


def test_the_verdict_is_of_the_one_we_would_have_given(compared):
    """Not of whichever column of ours the evaluation latents like best."""
    assert len(compared.verdicts) == 5
    for verdict in compared.verdicts:
        of = {
            e.schedule: e.error
            for e in compared.entries
            if (e.solver, e.nfe) == (verdict.solver, verdict.nfe)
        }
        others = {k: v for k, v in of.items() if "gits" not in k and k not in ("auto", "refined")}
        assert verdict.ours == "refined"
        assert verdict.error == pytest.approx(of["refined"])
        assert verdict.other == min(others, key=others.__getitem__)
        if verdict.error >= verdict.other_error:
            assert verdict.result == "no gain"
    euler = next(v for v in compared.verdicts if (v.solver, v.nfe) == ("euler", 5))
    assert euler.result == "gain"


def test_no_gain_is_said(model, warm, evaluation):
    """The paper's coefficient alone loses on model B (specification 7.2, reading iii)."""
    compared = compare_schedules(
        model,
        **RANGE,
        nfes=(6,),
        solvers=("ipndm",),
        schedules=("time_uniform 2", "gits 1.15"),
        warm=warm,
        evaluation=evaluation,
    )
    (verdict,) = compared.verdicts
    assert (verdict.ours, verdict.other, verdict.result) == (
        "gits 1.15",
        "time_uniform 2",
        "no gain",
    )
    assert [e.best for e in compared.entries] == [True, False]


def test_evaluation_latents_are_drawn_apart(model, warm, evaluation, train):
    together = torch.cat([evaluation.latents, train.latents, warm.latents]).flatten(1)
    assert len(together.unique(dim=0)) == len(together)
    found = compare_schedules(
        model,
        **RANGE,
        nfes=(2,),
        solvers=("euler",),
        schedules=("log_snr",),
        warm=warm,
        evaluation_samples=40,
    )
    wanted = end_errors(model, evaluation, log_snr(3, 0.002, 80.0), solver="euler").mean()
    assert found.entries[0].error == pytest.approx(float(wanted))
    assert found.verdicts == ()
    with pytest.raises(ValueError, match="stream must be >= 2"):
        training_points(model, warm, 4, stream=1)


def test_published_schedules_where_the_range_fits():
    left_out: list[str] = []
    names = columns(("ays sd", "ays sdxl", "ays svd"), 0.0292, 14.6146, None, left_out)
    assert names == ["ays sd", "ays sdxl"]
    assert left_out == ["ays svd: its model has sigma 0.002 to 700"]
    model = digits_gauss10()
    table = compare_schedules(
        model,
        sigma_min=0.0292,
        sigma_max=14.6146,
        shape=(1, 8, 8),
        nfes=(4,),
        solvers=("euler",),
        schedules=("ays sd", "polynomial 7"),
        evaluation_samples=4,
        samples=4,
        held_out=4,
        points=9,
        like=DOUBLE,
    )
    torch.testing.assert_close(
        torch.tensor(table.entries[0].sigmas, dtype=torch.float64), ays(5, 0.0292, 14.6146)
    )


def test_guidance_counts_twice(model, warm, evaluation):
    class Guided:
        network_calls = 2

        def __call__(self, x, sigma):
            return model(x, sigma)

    few = EndPoints(evaluation.latents[:4], evaluation.ends[:4])
    found = compare_schedules(
        Guided(),
        **RANGE,
        nfes=(3,),
        solvers=("euler",),
        schedules=("log_snr",),
        warm=warm,
        evaluation=few,
        batch=2,
    )
    assert found.entries[0].calls == 6


def test_plain_types(compared):
    again = json.loads(json.dumps(compared.to_dict(), allow_nan=False))
    assert len(again["entries"]) == len(compared.entries)
    assert again["about"]["fingerprint"] == compared.about["fingerprint"]
    assert isinstance(compared, Comparison)


def test_end_points_do_not_depend_on_batches(model, evaluation):
    grid = polynomial(9, 0.002, 80.0)
    whole = end_points(model, evaluation.latents, grid, solver="heun")
    parts = end_points(model, evaluation.latents, grid, batch=7, solver="heun")
    torch.testing.assert_close(whole.ends, parts.ends, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"solvers": ("eulr",)}, "did you mean|solvers must be of"),
        ({"solvers": ("dpmpp 4",)}, "order of dpmpp must be 1 to 3"),
        ({"solvers": ("heun",), "nfes": (3,)}, "leave something to compare"),
        ({"nfes": (0,)}, "nfes must be >= 1"),
        ({"schedules": ("karras",)}, "schedules must be of"),
        ({"schedules": ("gits 0",)}, "schedules must be of"),
        ({"schedules": ("gits 1.0 l3",)}, "schedules must be of"),
        ({"schedules": ("own",)}, "leave something to compare"),
        ({"schedules": ("gits 1.0 l1",)}, "the warm-up must have the metric"),
        ({"options": {"guess": 1}}, "options must be of"),
        ({"own": lambda n: log_snr(n, 0.01, 80.0), "schedules": ("own",)}, "own must run from"),
    ],
)
def test_bad_arguments(model, warm, evaluation, bad, match):
    given = {"nfes": (3,), "solvers": ("euler",), "schedules": ("log_snr",)} | bad
    with pytest.raises(ValueError, match=match):
        compare_schedules(model, **RANGE, **given, warm=warm, evaluation=evaluation)


def test_options_go_to_the_solvers_that_take_them():
    assert taken("dpmpp", {"prediction": "noise", "variant": "bh1"}) == {"prediction": "noise"}
    assert taken("euler", {"prediction": "noise"}) == {}
    assert settings(("dpmpp 2", "ipndm"), (4,))[0] == [("dpmpp", 2, 4), ("ipndm", 4, 4)]
    assert path_of("gits 0.9") == (0.9, "dev")
