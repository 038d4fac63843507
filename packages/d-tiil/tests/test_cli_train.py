"""`d-tiil-train`: a run's folder, and that what it leaves can be looked with."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("diffusers")

TINY = ("--count", 16, "--epochs", 1, "--autoencoder-epochs", 1, "--batch-size", 8, "--judged", 2)


def test_a_model_is_trained_and_scores(call, tmp_path):
    assert call("train", "--out", tmp_path / "run", *TINY) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["command"] == "d-tiil-train"
    assert (tmp_path / "run/report.html").is_file()
    asked = ("--parts", "caption", "--kinds", "color", "--count", 1, "--calibration", 0)
    assert call("make-pairs", "--out", tmp_path / "set", *asked) == 0
    line = json.loads((tmp_path / "set/pairs.jsonl").read_text())
    given = ("--image", tmp_path / "set" / line["image"], "--caption", line["caption"])
    quick = ("--align-steps", 1, "--align-batch", 2, "--pairs", 4)
    model = result["files"]["model"]
    assert call("score", "--model", model, *given, *quick, "--out", tmp_path / "score") == 0
    told = json.loads((tmp_path / "score/result.json").read_text())
    assert told["settings"]["locate"]["alignment"]["lr"] == 2e-2  # kept in the model's folder


def test_a_dry_run_writes_nothing(call, tmp_path):
    assert call("train", "--out", tmp_path / "run", *TINY, "--dry-run") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", 0), "--count must be >= 1"),
        (("--scenes", "simpel"), "--scenes: expected one of simple, crowded"),
        (("--precision", "64-true"), "--precision: expected one of"),
        (("--resume", "last"), "nothing to resume"),
    ],
)
def test_bad_options(call, tmp_path, capsys, arguments, message):
    assert call("train", "--out", tmp_path / "run", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
