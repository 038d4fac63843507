"""Commands in two processes give what one gives; the network has no batch norm."""

import csv
import json

import numpy as np
import pytest
import torch
from papercommons.cli import run_command
from papercommons.testing.processes import run_in_two
from PIL import Image
from rld_distill import cli

pytestmark = pytest.mark.ddp


def call(function, *arguments):
    words = [*map(str, arguments), "--accelerator", "cpu"]
    return run_command(function, prog="rld-distill", argv=words)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folders of squares in three corners, 60 pictures of 32 x 32, with noise."""
    folder = tmp_path_factory.mktemp("photos")
    chance = np.random.default_rng(0)
    for number in range(60):
        row, column = divmod(number % 3, 2)
        pixels = chance.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[16 * row : 16 * row + 14, 16 * column : 16 * column + 14] += 150
        place = folder / "abc"[number % 3] / f"{number:02d}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place)
    return folder


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory):
    """One run in one process, and one in two with half the batch each."""
    pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("runs")
    recipe = ("--data", photos, "--student", "timm:convnext_atto", "--method", "ce", "--epochs", 2)
    recipe += ("--size", 32, "--val-fraction", 0.25, "--lr", 0.01, "--precision", "64-true")
    assert call(cli.train, *recipe, "--batch-size", 18, "--out", folder / "one") == 0
    two = (*recipe, "--batch-size", 9, "--out", folder / "two", "--json")
    said = run_in_two("rld_distill.cli:main_train", *two, folder=folder, launcher="lightning")
    assert json.loads(said)["package"] == "rld-distill"  # printed once
    return folder


def test_two_processes_train_as_one(runs):
    one, two = (
        torch.load(runs / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-7, msg=name)
    found = [json.loads((runs / n / "result.json").read_text())["metrics"] for n in ("one", "two")]
    for name in ("accuracy", "nll", "ece", "val_nll", "best_accuracy"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-5), name
    logged = [rows_of(runs / name / "metrics.csv")[-1] for name in ("one", "two")]
    for name in logged[0].keys() - {"seconds"}:
        assert float(logged[0][name]) == pytest.approx(float(logged[1][name]), rel=1e-4), name


def test_two_processes_name_each_image_once_and_as_one_does(runs, photos, tmp_path):
    given = (photos / "a", photos / "b" / "01.png", "--checkpoint", runs / "one", "--json")
    given += ("--batch-size", 4, "--precision", "64-true")
    assert call(cli.predict, *given, "--out", tmp_path / "one") == 0
    two = (*given, "--out", tmp_path / "two")
    said = run_in_two("rld_distill.cli:main_predict", *two, folder=tmp_path, launcher="torchrun")
    assert json.loads(said)["metrics"]["images"] == 21  # an odd number: shares differ
    ours, theirs = (rows_of(tmp_path / name / "predictions.csv") for name in ("one", "two"))
    assert [row["path"] for row in ours] == [row["path"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["prediction"] == other["prediction"]
        assert float(mine["probability"]) == pytest.approx(float(other["probability"]), rel=1e-5)
