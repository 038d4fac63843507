"""The schedule: its checks, its file, and what other tools get from it."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
import torch
from gits_sampling.schedule import Schedule, check_sigmas
from gits_sampling.solvers import sample
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError

SIGMAS = [80, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0.002]
VALUES = {
    "sigmas": SIGMAS,
    "nfe": 6,
    "solver": "ipndm",
    "order": 4,
    "indices": [0, 19, 27, 33, 39, 45, 60],
    "coeff": 1.15,
    "metric": "dev",
    "cost": -0.25,
    "teacher": "ipndm",
    "teacher_order": 4,
    "grid": "polynomial",
    "rho": 7.0,
    "grid_points": 61,
    "warmup": 256,
    "seed": 0,
    "fingerprint": "0123abcd",
    "details": {"held-out error": {"gits": 1.5, "polynomial": [2.0, None]}},
}


def changed(**values):
    return Schedule(**{**VALUES, **values})


def test_values():
    schedule = changed()
    assert torch.equal(schedule.sigmas, torch.tensor(SIGMAS, dtype=torch.float64))
    assert schedule.steps == 6
    assert schedule.indices == (0, 19, 27, 33, 39, 45, 60)
    assert str(schedule) == "gits schedule of 6 steps, sigma 80 to 0.002"
    assert schedule != changed(sigmas=[np.nextafter(80, 81), *SIGMAS[1:]])
    assert schedule != changed(seed=1)
    with pytest.raises(AttributeError):
        schedule.seed = 1


def test_results_of_torch_and_numpy_become_plain():
    indices = torch.tensor(VALUES["indices"])
    schedule = changed(
        sigmas=torch.tensor(SIGMAS, dtype=torch.float64, requires_grad=True),
        indices=indices,
        cost=torch.tensor(-0.25, dtype=torch.float64),
        warmup=np.int64(256),
        rho=7,
    )
    assert schedule == changed()
    assert not schedule.sigmas.requires_grad
    given = torch.tensor([3.0, 2, 1], dtype=torch.float64)
    kept = Schedule(sigmas=given, nfe=2, solver="euler")
    given[0] = 5
    assert kept.sigmas[0] == 3


@given(
    sigmas=st.lists(st.floats(1e-300, 1e300), min_size=2, max_size=12, unique=True),
    cost=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ends_at_zero=st.booleans(),
)
def test_file_keeps_every_bit(tmp_path_factory, sigmas, cost, ends_at_zero):
    path = tmp_path_factory.mktemp("schedule") / "s.json"
    sigmas = sorted(sigmas, reverse=True) + [0.0] * ends_at_zero
    schedule = Schedule(sigmas=sigmas, nfe=len(sigmas), solver="euler", cost=cost)
    schedule.save(path)
    assert Schedule.load(path) == schedule
    assert Schedule.load(path).sigmas.tolist() == sigmas


def test_file(tmp_path):
    path = tmp_path / "new" / "schedule.json"
    changed().save(path)
    assert Schedule.load(path) == changed()
    values = json.loads(path.read_text())
    assert values["format"] == "gits-sampling schedule"
    assert values["indices"] == VALUES["indices"]
    assert os.listdir(path.parent) == ["schedule.json"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": [3, 3, 1]}, "sigmas must be finite and strictly decreasing"),
        ({"sigmas": [1, 2, 3]}, "strictly decreasing"),
        ({"sigmas": [3, 1, -1]}, "the last >= 0"),
        ({"sigmas": [3, 0, 0]}, "strictly decreasing"),
        ({"sigmas": [3]}, "n >= 2"),
        ({"sigmas": []}, "n >= 2"),
        ({"sigmas": "321"}, "sigmas must be numbers"),
        ({"sigmas": 3}, "sigmas must be numbers"),
        ({"sigmas": [3, None]}, "sigmas must be numbers"),
        ({"sigmas": [[3, 2]]}, "sigmas must be numbers"),
        ({"sigmas": [10**400, 2]}, "sigmas must be numbers"),
        ({"nfe": 0}, "nfe must be an integer >= 1, got 0"),
        ({"nfe": 5}, "nfe must be at least one for a step, got 5"),
        ({"nfe": 6.0}, "nfe must be an integer >= 1, got 6.0"),
        ({"nfe": True}, "nfe must be an integer"),
        ({"nfe": None}, "nfe must be an integer"),
        ({"solver": None}, "solver must be text"),
        ({"afs": 1}, "afs must be true or false, got 1"),
        ({"coeff": 0}, "coeff must be a finite number > 0, got 0"),
        ({"coeff": "1.15"}, "coeff must be a finite number"),
        ({"cost": 10**400}, "cost must be a finite number"),
        ({"order": 0}, "order must be an integer >= 1"),
        ({"indices": [0, 60]}, "indices must be 7, one for each sigma"),
        ({"indices": [0, 19, 27, 33, 39, 45, 59]}, "increasing from 0 to 60"),
        ({"indices": [1, 19, 27, 33, 39, 45, 60]}, "from 0"),
        ({"indices": [0, 27, 19, 33, 39, 45, 60]}, "increasing"),
        ({"indices": [0, 1.5, 27, 33, 39, 45, 60]}, "indices must be integers"),
        ({"indices": 7}, "indices must be integers"),
        ({"details": 3}, "details must be a mapping"),
    ],
)
def test_bad_values_here_and_in_files(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        changed(**change)
    path = tmp_path / "schedule.json"
    changed().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message) as caught:
        Schedule.load(path)
    assert str(caught.value).startswith(f"{path}: not a valid schedule: ")
    assert "\n" not in str(caught.value)


def test_values_that_json_has_not():
    with pytest.raises(ValueError, match="cost must be a finite number, got nan"):
        changed(cost=float("nan"))
    with pytest.raises(ValueError, match="details must be plain values"):
        changed(details={"error": float("inf")})
    with pytest.raises(ValueError, match="details must be plain values"):
        changed(details={"model": torch.nn.Identity()})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a readable schedule"),
        (lambda text: "", "not a readable schedule"),
        (lambda text: "[" * 100_000, "not a readable schedule"),
        (lambda text: "[1, 2]", "expected an object with"),
        (lambda text: text.replace("gits-sampling schedule", "other"), "expected an object with"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 2'), "got 2"),
        (lambda text: text.replace("-0.25", "NaN"), "NaN is not strict JSON"),
        (lambda text: text.replace('"seed": 0', '"seed": 0, "seed": 1'), "an entry is there twice"),
        (lambda text: text.replace('"coeff"', '"coef"'), "'coef'; did you mean coeff"),
        (lambda text: text.replace('"nfe": 6,', ""), "no entry nfe"),
    ],
)
def test_broken_files(tmp_path, edit, message):
    path = tmp_path / "schedule.json"
    changed().save(path)
    path.write_text(edit(path.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        Schedule.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json: no such file"):
        Schedule.load(tmp_path / "absent.json")
    with pytest.raises(DataError, match="not a readable schedule"):
        Schedule.load(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a readable schedule"):
        Schedule.load(tmp_path / "bytes.json")


def test_failed_saving_leaves_the_file(tmp_path, monkeypatch):
    path = tmp_path / "schedule.json"
    changed().save(path)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        changed(seed=1).save(path)
    assert Schedule.load(path) == changed()
    assert [file.name for file in tmp_path.iterdir()] == ["schedule.json"]


def test_kdiffusion():
    schedule = changed()
    appended = schedule.to_kdiffusion()
    assert appended.dtype == torch.float32
    assert torch.equal(appended, torch.tensor([*SIGMAS, 0.0]))
    assert torch.equal(schedule.to_kdiffusion(end="replace"), torch.tensor([*SIGMAS[:-1], 0.0]))
    kept = schedule.to_kdiffusion(end="keep", dtype=torch.float64)
    assert torch.equal(kept, schedule.sigmas)
    assert schedule.sigmas[-1] == 0.002
    at_zero = Schedule(sigmas=[3, 1, 0], nfe=2, solver="euler")
    assert at_zero.to_kdiffusion().tolist() == [3, 1, 0]
    with pytest.raises(ValueError, match="end must be append, replace or keep, got 'zero'"):
        schedule.to_kdiffusion(end="zero")
    close = Schedule(sigmas=[3, 3 - 1e-9, 1], nfe=2, solver="euler")
    with pytest.raises(ValueError, match=r"apart in torch\.float32"):
        close.to_kdiffusion()


def test_comfyui():
    """The pattern is the one its node finds numbers with: an exponent would break it."""
    small = Schedule(sigmas=[14.614642, 0.5, 2.5e-7, 1e-9], nfe=3, solver="euler")
    for schedule in (changed(), small):
        text = schedule.to_comfyui()
        read = [float(number) for number in re.findall(r"[-+]?(?:\d*\.*\d+)", text)]
        assert torch.equal(torch.tensor(read), schedule.to_kdiffusion(end="replace"))
    assert changed().to_comfyui() == "80, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0"


def test_check_sigmas_copies():
    given = torch.tensor([2.0, 1.0], dtype=torch.float64)
    checked = check_sigmas(given)
    checked[0] = 9
    assert given[0] == 2


def test_what_goes_with_the_sigmas():
    schedule = changed(solver="dpmpp", order=2, prediction="noise", denoise_to_zero=True, nfe=7)
    assert schedule.solver_options == {
        **{"solver": "dpmpp", "order": 2, "afs": False, "denoise_to_zero": True},
        **{"prediction": "noise", "thresholding": False},
    }
    x = torch.full((2, 3), 80.0, dtype=torch.float64)
    found = sample(lambda x, sigma: 0 * x, x, schedule.sigmas, **schedule.solver_options)
    assert torch.equal(found, torch.zeros_like(x))
    for wrong in ({"prediction": "eps"}, {"prediction": None}, {"thresholding": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            changed(**wrong)


@pytest.mark.filterwarnings("ignore:__array_")
def test_a_schedule_moves_into_diffusers():
    diffusers = pytest.importorskip("diffusers")
    schedule = changed(sigmas=[12.0, 3.0, 0.5, 0.05], indices=None, nfe=3, grid_points=None)
    scheduler = diffusers.EulerDiscreteScheduler()
    kept = schedule.to_diffusers(scheduler)
    kept.set_timesteps(50)
    assert kept.sigmas.tolist() == pytest.approx(schedule.sigmas.tolist())
    assert kept is not scheduler
    with pytest.raises(ValueError, match="takes no schedule"):
        schedule.to_diffusers(diffusers.PNDMScheduler())
