"""A command in two processes gives what one gives; the encoder has layer norm."""

import csv
import json

import pytest
import torch
from papercommons.testing.processes import run_in_two

pytestmark = pytest.mark.ddp


def test_two_processes_train_as_one_and_the_first_judges(words, call, tmp_path):
    recipe = ("--data", words, "--encoder", "vit-tiny", "--objective", "pairs", "--epochs", 1)
    recipe += ("--augment", "none", "--optimizer", "sgd", "--lr", 0.05)
    assert call("train", *recipe, "--batch-size", 16, "--out", tmp_path / "one") == 0
    two = (*recipe, "--batch-size", 8, "--out", tmp_path / "two", "--json")
    said = run_in_two("ssl_hv.cli:main_train", *two, folder=tmp_path, launcher="torchrun")
    assert json.loads(said)["package"] == "ssl-hv"  # printed once
    one, two = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, equal_nan=True, msg=name)
    logged, scores = [], []
    for name in ("one", "two"):
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            logged += [row for row in csv.DictReader(file)]
        with (tmp_path / name / "items.csv").open(newline="") as file:
            scores.append([float(row["score"]) for row in csv.DictReader(file)])
    assert float(logged[0]["val/auc"]) == pytest.approx(float(logged[1]["val/auc"]), abs=1e-4)
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
