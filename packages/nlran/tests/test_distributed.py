"""Commands in two processes give what one gives; the network has group norm."""

import csv
import json

import pytest
import torch
from papercommons.testing.processes import run_in_two

pytestmark = pytest.mark.ddp


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(call, phantoms, tmp_path_factory):
    """One run in one process, and one in two as of two machines, with half the batch each."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = ("--data", phantoms / "ct", "--norm", "group", "--size", "32,32,32", "--epochs", 2)
    recipe += (
        "--val-fraction",
        0.2,
        "--test-fraction",
        0.2,
        "--optimizer",
        "sgd",
        "--precision",
        "64-true",
    )
    one = (*recipe, "--batch-size", 6, "--accelerator", "cpu", "--out", folder / "one")
    assert call("train", *one) == 0
    two = (*recipe, "--batch-size", 3, "--out", folder / "two", "--json")
    said = run_in_two("nlran.cli:main_train", *two, folder=folder, launcher="slurm")
    assert json.loads(said)["package"] == "nlran"  # printed once
    return folder


def test_two_processes_train_as_one(runs):
    one, two = (
        torch.load(runs / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=name)
    logged = [rows_of(runs / name / "metrics.csv")[-1] for name in ("one", "two")]
    for name in logged[0].keys() - {"seconds"}:
        values = [float(row[name]) for row in logged]
        assert values[0] == pytest.approx(values[1], rel=1e-4, abs=1e-6), name
    found = [json.loads((runs / n / "result.json").read_text())["metrics"] for n in ("one", "two")]
    assert found[0]["confusion"] == found[1]["confusion"]
    assert found[0]["nll"] == pytest.approx(found[1]["nll"], rel=1e-4)


def test_two_processes_judge_each_scan_once_and_as_one_does(runs, call, phantoms, tmp_path):
    given = ("--data", phantoms / "ct", "--checkpoint", runs / "one", "--split", "all")
    given += ("--limit", 5, "--batch-size", 2)
    assert call("eval", *given, "--accelerator", "cpu", "--out", tmp_path / "one") == 0
    two = (*given, "--out", tmp_path / "two", "--json")
    said = run_in_two("nlran.cli:main_eval", *two, folder=tmp_path, launcher="torchrun")
    assert json.loads(said)["metrics"]["scans"] == 15  # an odd number: shares differ
    ours, theirs = (rows_of(tmp_path / name / "items.csv") for name in ("one", "two"))
    assert [row["scan"] for row in ours] == [row["scan"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["prediction"] == other["prediction"]
        assert float(mine["p(NCP)"]) == pytest.approx(float(other["p(NCP)"]), abs=2e-6)
