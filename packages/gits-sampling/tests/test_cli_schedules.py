from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import torch
from gits_sampling import cli
from gits_sampling.end_points import end_errors, training_points
from gits_sampling.fit import fit_schedule
from gits_sampling.fit_report import describe
from gits_sampling.latents import draw_latents
from gits_sampling.models import digits_gauss10
from gits_sampling.sample_pictures import to_uint8
from gits_sampling.schedule import Schedule
from gits_sampling.solvers import sample
from gits_sampling.warming import warm_up
from papercommons.cli import run_command
from papercommons.data.images import read_image

SMALL = ("--warmup", "8", "--held-out", "8", "--teacher-points", "13")
DOUBLE = torch.zeros((), dtype=torch.float64)
RANGE = {"sigma_min": 0.002, "sigma_max": 80.0, "shape": (1, 8, 8)}


def call(verb, *words):
    return run_command(getattr(cli, verb), prog=verb, argv=[str(word) for word in words])


def result_of(folder):
    """Strictly read: NaN and Infinity are no JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} in result.json")

    return json.loads((folder / "result.json").read_text(), parse_constant=refuse)


def is_whole(folder, pictures):
    page = (folder / "report.html").read_text()
    links = re.findall(r'(?:src|href)\s*=\s*["\']?([^"\'\s>]+)', page)
    assert all(link.startswith(("data:", "#")) for link in links), links
    assert page.count("data:image/png;base64,") == pictures
    result = result_of(folder)
    assert result["package"] == "gits-sampling"
    assert result["versions"]["gits-sampling"]
    assert result["limits"]
    assert result["device"].startswith("cpu")
    return result


@pytest.fixture(scope="module")
def model():
    return digits_gauss10()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "run"
    words = ("--model", "digits-gauss10", "--nfe", "3-5:2", "--seed", 3, *SMALL)
    assert call("fit", *words, "--solver", "euler", "--out", out) == 0
    return out


def test_a_fit_leaves_a_file_for_each_budget(fitted, model):
    result = is_whole(fitted, 4)
    assert {path.name for path in fitted.iterdir()} == {
        *("euler-nfe3.json", "euler-nfe5.json", "config.yaml", "result.json", "report.html"),
        *("error-against-budget.png", "schedules.png", "costs.png", "samples.png"),
    }
    assert [row["nfe"] for row in result["rows"]] == [3, 5]
    options = {"grids": ("polynomial", "time_uniform"), "metrics": ("dev", "l2"), "like": DOUBLE}
    warm = warm_up(model, **RANGE, samples=8, held_out=8, points=13, seed=3, **options)
    for nfe in (3, 5):
        schedule = Schedule.load(fitted / f"euler-nfe{nfe}.json")
        again = fit_schedule(model, **RANGE, nfe=nfe, solver="euler", warm=warm)
        assert torch.equal(schedule.sigmas, again.sigmas)
        assert schedule.fingerprint == warm.about["fingerprint"]
        assert schedule.details["judged"]["samples"] == 8


def test_the_table_is_of_samples_that_chose_nothing(fitted, model):
    warm = warm_up(model, **RANGE, samples=1, held_out=1, points=13, seed=3, like=DOUBLE)
    judge = training_points(model, warm, 8, stream=3)
    for row in result_of(fitted)["rows"]:
        schedule = Schedule.load(fitted / f"euler-nfe{row['nfe']}.json")
        error = end_errors(model, judge, schedule.sigmas, solver="euler").mean()
        assert row["ours"] == pytest.approx(float(error), rel=1e-9)
        assert row["schedule"] == describe(schedule)
        others = [row[k] for k in row if k.startswith(("poly", "log", "time")) and k != "schedule"]
        assert len(others) == 4
        if row["result"] == "gain":
            assert row["ours"] < min(others)


def test_no_gain_is_said(tmp_path, capsys):
    words = ("--model", "digits-gauss10", "--nfe", "3", "--solver", "ipndm", *SMALL)
    assert call("fit", *words, "--coeff", "3", "--out", tmp_path / "a") == 0
    said = capsys.readouterr().out
    schedule = Schedule.load(tmp_path / "a" / "ipndm-nfe3.json")
    assert (schedule.coeff, schedule.metric, schedule.grid) == (3.0, "dev", "polynomial")
    assert schedule.details["judged"]["result"] == "no gain"
    assert "a gain at 0 of 1 budgets" in said
    assert "no gain at nfe 3" in said


def test_all_of_the_search_at_once(tmp_path):
    words = ("--model", "digits-gauss10", "--nfe", "4", "--solver", "dpmpp", "--order", "2", *SMALL)
    more = ("--metric", "l1", "--grid", "log_snr", "--form", "noise", "--afs", "--refine")
    assert call("fit", *words, *more, "--dtype", "float32", "--out", tmp_path / "a") == 0
    schedule = Schedule.load(tmp_path / "a" / "dpmpp-nfe4.json")
    assert (schedule.prediction, schedule.order, schedule.nfe) == ("noise", 2, 4)
    assert schedule.steps == 4 + schedule.afs
    assert {"afs", "refinement", "judged", "errors"} <= schedule.details.keys()
    names = [name for name in schedule.details["errors"] if name.startswith("gits")]
    assert names
    assert all(name.startswith("gits log_snr l1 ") for name in names)


def test_a_run_is_not_written_over(fitted, capsys):
    words = ("--model", "digits-gauss10", "--nfe", "3", *SMALL, "--out", fitted)
    before = (fitted / "euler-nfe3.json").read_bytes()
    assert call("fit", *words) == 2
    assert "pass --overwrite, or another --out" in capsys.readouterr().err
    assert call("sample", "--model", "digits-gauss10", "--sigmas", "80,1", "--out", fitted) == 2
    assert (fitted / "euler-nfe3.json").read_bytes() == before


def test_samples_are_those_of_the_library(fitted, model, tmp_path):
    path = fitted / "euler-nfe5.json"
    words = ("--model", "digits-gauss10", "--schedule", path, "--seeds", "7,2-4")
    assert call("sample", *words, "--out", tmp_path / "a", "--batch-size", 3) == 0
    schedule = Schedule.load(path)
    latents = draw_latents([7, 2, 3, 4], (1, 8, 8), 80.0, DOUBLE)
    images = sample(model, latents, schedule.sigmas, **schedule.solver_options)
    for image, seed in zip(to_uint8(images), (7, 2, 3, 4), strict=True):
        found = np.asarray(read_image(tmp_path / "a" / "samples" / f"{seed:010d}.png"))
        assert np.array_equal(found[..., 0], image[0].numpy())
    assert read_image(tmp_path / "a" / "grid.png").size[0] >= 600
    result = is_whole(tmp_path / "a", 2)
    assert result["metrics"]["network_calls_each"] == 5
    assert call("sample", *words, "--save", "npz", "--out", tmp_path / "b") == 0
    arrays = np.load(tmp_path / "b" / "samples.npz")
    assert arrays["seeds"].tolist() == [7, 2, 3, 4]
    np.testing.assert_allclose(arrays["samples"], images.float().numpy(), rtol=0, atol=1e-6)
    assert not (tmp_path / "b" / "samples").exists()


def test_levels_of_ones_own(model, tmp_path):
    words = ("--model", "digits-gauss10", "--sigmas", "80,5,1,0.1", "--seeds", "1")
    more = ("--solver", "dpmpp", "--order", 2, "--form", "noise", "--denoise-to-zero")
    assert call("sample", *words, *more, "--save", "npz", "--out", tmp_path / "a") == 0
    latents = draw_latents([1], (1, 8, 8), 80.0, DOUBLE)
    options = {"solver": "dpmpp", "order": 2, "prediction": "noise", "denoise_to_zero": True}
    expected = sample(model, latents, [80.0, 5.0, 1.0, 0.1], **options)
    found = np.load(tmp_path / "a" / "samples.npz")["samples"]
    np.testing.assert_allclose(found, expected.float().numpy(), rtol=0, atol=1e-6)
    assert result_of(tmp_path / "a")["metrics"]["network_calls_each"] == 4


def test_a_schedule_of_another_model_is_refused(fitted, tmp_path, capsys):
    path = fitted / "euler-nfe3.json"
    words = ("--model", "digits-empirical", "--schedule", path, "--seeds", "1")
    assert call("sample", *words, "--out", tmp_path / "a") == 2
    assert "was fitted to another model (fingerprint" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert call("sample", *words, "--force", "--out", tmp_path / "a") == 0
    assert "was fitted to another model" in capsys.readouterr().err


def test_a_schedule_with_another_solver(fitted, tmp_path):
    path = fitted / "euler-nfe3.json"
    words = ("--model", "digits-gauss10", "--schedule", path, "--seeds", "1", "--solver", "heun")
    assert call("sample", *words, "--out", tmp_path / "a") == 0
    assert result_of(tmp_path / "a")["metrics"]["network_calls_each"] == 6
    wrong = ("--form", "noise", "--out", tmp_path / "b")
    assert call("sample", *words, *wrong) == 2


def test_bf16_is_the_same_model(fitted, tmp_path):
    path = fitted / "euler-nfe3.json"
    words = ("--model", "digits-gauss10", "--schedule", path, "--seeds", "1")
    assert call("sample", *words, "--precision", "bf16-mixed", "--out", tmp_path / "a") == 0


@pytest.mark.filterwarnings("ignore:__array_")
def test_latents_are_saved_as_arrays(tmp_path, monkeypatch, capsys):
    (tmp_path / "wide_model.py").write_text(
        "class Wide:\n"
        "    shape, sigma_min, sigma_max, network_calls = (4, 6), 0.1, 10.0, 2\n"
        "    def __call__(self, x, sigma):\n"
        "        return x / (1 + sigma.to(x.dtype) ** 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ("--model", "wide_model:Wide", "--sigmas", "10,1,0.1", "--seeds", "0-2")
    assert call("sample", *words, "--save", "png", "--out", tmp_path / "a") == 2
    assert "samples are (4, 6) here, so take npz" in capsys.readouterr().err
    assert call("sample", *words, "--out", tmp_path / "a") == 0
    assert np.load(tmp_path / "a" / "samples.npz")["samples"].shape == (3, 4, 6)
    assert result_of(tmp_path / "a")["metrics"]["network_calls_each"] == 4
    fit = ("--model", "wide_model:Wide", "--nfe", "2", *SMALL, "--coeff", "1", "--metric", "l2")
    assert call("fit", *fit, "--out", tmp_path / "b") == 0
    is_whole(tmp_path / "b", 3)
    assert "each evaluation (nfe) makes 2 network calls" in capsys.readouterr().out


def test_comparing(tmp_path, capsys):
    words = ("--model", "digits-gauss10", "--nfe", "3,4", "--solvers", "euler,heun,dpmpp-2", *SMALL)
    more = ("--schedules", "poly7,uniform2,gits,gits-1.1-l1,auto,ays-sd", "--eval-samples", 16)
    assert call("compare", *words, *more, "--out", tmp_path / "a") == 0
    said = capsys.readouterr().out
    assert "left out: ays sd: its model has sigma" in said
    assert "left out: heun, nfe 3" in said
    result = is_whole(tmp_path / "a", 2)
    rows = list(csv.DictReader((tmp_path / "a" / "comparison.csv").read_text().splitlines()))
    assert len(rows) == 5 * 5
    assert {row["schedule"] for row in rows} == {
        *("polynomial 7", "time_uniform 2", "gits 1.0", "gits 1.1 l1", "auto")
    }
    for row in result["rows"]:
        found = {
            r["schedule"]: float(r["error"])
            for r in rows
            if (r["solver"], int(r["nfe"])) == (row["solver"], row["nfe"])
        }
        fixed = min(("polynomial 7", "time_uniform 2"), key=found.__getitem__)
        assert row["best other"] == fixed
        assert row["ours"] == "auto"
        assert row["ratio"] == pytest.approx(found["auto"] / found[fixed])
    assert {"errors.png", "schedules.png"} <= {path.name for path in (tmp_path / "a").iterdir()}


def test_analyzing(model, tmp_path):
    words = ("--model", "digits-gauss10", "--points", 21, "--samples", 6, "--data", "digits")
    more = ("--curvature-points", 41, "--window", 9, "--out", tmp_path / "a")
    assert call("analyze", *words, *more) == 0
    result = is_whole(tmp_path / "a", 5)
    arrays = dict(np.load(tmp_path / "a" / "stats.npz"))
    assert arrays["deviation_state"].shape == (19, 6)
    assert arrays["curvature"].shape == arrays["torsion"].shape == (41, 6)
    assert arrays["gap_state"].shape == (21, 6)
    assert arrays["pca_energy"].shape == (6, 5)
    chord = arrays["distance_state"][0].mean()
    assert result["metrics"]["chord_length"] == pytest.approx(float(chord))
    assert 500 < chord < 800  # about sigma_max sqrt(d) = 640
    assert result["metrics"]["energy_PC1"] > 0.999
    pictures = {path.stem for path in (tmp_path / "a").glob("*.png")}
    assert pictures == {"statistics", "boomerang", "pca", "curvature", "gap"}


@pytest.mark.filterwarnings("ignore:__array_", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_pipeline_of_diffusers(tmp_path, capsys):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    small = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    unet = diffusers.UNet2DModel(sample_size=8, in_channels=3, out_channels=3, **blocks, **small)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipe")
    words = ("--model", tmp_path / "pipe", "--nfe", "3", *SMALL, "--coeff", "1")
    assert call("fit", *words, "--out", tmp_path / "a") == 0
    row = result_of(tmp_path / "a")["rows"][0]
    assert row["own"] > 0  # the scheduler's own schedule stands beside ours
    schedule = tmp_path / "a" / "ipndm-nfe3.json"
    words = ("--model", tmp_path / "pipe", "--schedule", schedule, "--seeds", "0-3")
    assert call("sample", *words, "--out", tmp_path / "b") == 0
    assert read_image(tmp_path / "b" / "samples" / "0000000003.png").size == (8, 8)
    with torch.no_grad():
        unet.conv_out.weight.mul_(2)  # another model
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipe")
    assert call("sample", *words, "--out", tmp_path / "c") == 2
    assert "was fitted to another model" in capsys.readouterr().err
    words = ("--model", tmp_path / "a", "--sigmas", "9,1", "--overwrite", "--out", tmp_path)
    assert call("sample", *words) == 2
    assert "would delete" in capsys.readouterr().err
