from __future__ import annotations

import pytest
import torch
from gits_sampling.afs import BETWEEN, add_first_step, first_points
from gits_sampling.end_points import end_errors, held_out, training_points
from gits_sampling.fit import fit_schedule
from gits_sampling.models import digits_empirical
from gits_sampling.schedule import Schedule
from gits_sampling.sigmas import polynomial
from gits_sampling.solvers import network_calls
from gits_sampling.warming import warm_up

DOUBLE = torch.zeros((), dtype=torch.float64)
RANGE = {"sigma_min": 0.002, "sigma_max": 80.0, "shape": (1, 8, 8)}


class Counted(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, x, sigma):
        self.calls += 1
        return self.model(x, sigma)


@pytest.fixture(scope="module")
def model():
    return digits_empirical()


@pytest.fixture(scope="module")
def warm(model):
    return warm_up(model, **RANGE, samples=16, held_out=32, points=31, like=DOUBLE)


@pytest.fixture(scope="module")
def train(model, warm):
    return training_points(model, warm, 24)


def fitted(model, warm, nfe, **values):
    return fit_schedule(model, **RANGE, nfe=nfe, coeff=1.0, warm=warm, **values)


# the reference fails for dpmpp, deis and unipc (specification, 3.9.5)
@pytest.mark.parametrize("solver", ["euler", "ipndm", "ipndm_v", "deis", "dpmpp", "unipc"])
def test_one_point_more_at_the_same_calls(model, warm, train, solver):
    start = fitted(model, warm, 4, solver=solver)
    found = add_first_step(model, warm, start, train=train, noise=0.0)
    errors = found.details["afs"]["train"]
    grid = warm.grids["polynomial"]
    assert list(errors) == [f"{s:.6g}" for s in grid[1 : start.indices[1]].tolist()]
    counted = Counted(model)
    if found.details["afs"]["result"] == "gain":
        assert (found.afs, found.steps, found.nfe) == (True, 5, 4)
        assert set(start.indices) < set(found.indices)
        torch.testing.assert_close(grid[list(found.indices)], found.sigmas)
        assert errors[f"{found.sigmas[1]:.6g}"] == min(errors.values())
        again = end_errors(model, train, found.sigmas, solver=solver, afs=True).mean()
        assert float(again) == pytest.approx(min(errors.values()))
    else:
        assert torch.equal(found.sigmas, start.sigmas)
    end_errors(counted, held_out(warm), found.sigmas, solver=solver, afs=found.afs)
    assert counted.calls == found.nfe == 4


def test_it_gains_for_euler_and_says_so(model, warm, train):
    found = add_first_step(model, warm, fitted(model, warm, 3, solver="euler"), train=train)
    about = found.details["afs"]
    assert (about["result"], about["calls"]) == ("gain", [3, 3])
    assert about["held_out"]["after"] < about["held_out"]["before"]
    error = end_errors(model, held_out(warm), found.sigmas, solver="euler", afs=True).mean()
    assert float(error) == pytest.approx(about["held_out"]["after"])


def test_without_a_grid_point_between_others_are_tried(model, warm):
    """There the reference inserts nothing and makes one call less than it reports (3.9.5)."""
    grid = warm.grids["polynomial"]
    path = (0, 1, 15, 30)
    on_grid = Schedule(
        sigmas=grid[list(path)], indices=path, nfe=3, solver="euler", grid="polynomial"
    )
    off_grid = Schedule(sigmas=polynomial(4, 0.002, 80.0), nfe=3, solver="euler")
    for schedule in (on_grid, off_grid):
        points, indices = first_points(warm, schedule)
        assert indices is None
        assert len(points) == BETWEEN
        assert (points < 80).all()
        assert (points > schedule.sigmas[1]).all()
        torch.testing.assert_close(points.log().diff().std(), torch.zeros((), dtype=points.dtype))


def test_points_off_the_grid_are_no_path(model, warm, train):
    start = Schedule(sigmas=polynomial(3, 0.002, 80.0), nfe=2, solver="euler", method="x")
    found = add_first_step(model, warm, start, train=train, noise=0.0)
    assert found.details["afs"]["result"] == "gain"
    assert (found.steps, found.nfe, found.indices, found.method) == (3, 2, None, "x")


def test_two_call_solvers_cost_one_call_more_and_say_so(model, warm, train):
    start = fitted(model, warm, 4, solver="heun")
    found = add_first_step(model, warm, start, train=train)
    assert found.details["afs"]["calls"] == [4, 5]
    assert found.nfe == network_calls("heun", found.steps, found.afs)


def test_no_gain_leaves_the_sigmas(model, warm, train):
    start = fitted(model, warm, 4, solver="euler")
    found = add_first_step(model, warm, start, train=train, noise=1e9)
    assert torch.equal(found.sigmas, start.sigmas)
    assert (found.afs, found.indices, found.nfe) == (False, start.indices, 4)
    assert found.details["afs"]["result"] == "no gain"


def test_bad_arguments(model, warm, train):
    start = fitted(model, warm, 3, solver="euler", afs=True)
    with pytest.raises(ValueError, match="without an analytical first step"):
        add_first_step(model, warm, start, train=train)
    with pytest.raises(ValueError, match="noise must be >= 0"):
        add_first_step(model, warm, fitted(model, warm, 3), train=train, noise=-1.0)
