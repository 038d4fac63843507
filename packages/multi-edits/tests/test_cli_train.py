"""`multi-edits-train`: a run's folder, and that what it leaves can be edited with."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")

TINY = ("--count", 16, "--epochs", 1, "--autoencoder-epochs", 1, "--batch-size", 8, "--judged", 2)


def test_a_model_is_trained_and_edits(call, tmp_path, capsys):
    assert call("train", "--out", tmp_path / "run", *TINY) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["command"] == "multi-edits-train"
    assert result["settings"]["scenes"] == "simple"
    assert (tmp_path / "run/report.html").is_file()
    model = result["files"]["model"]
    assert call("make-scenes", "--out", tmp_path / "set", "--count", 1, "--edits", "1") == 0
    record = json.loads((tmp_path / "set/mapping_file.json").read_text())["0000"]
    image = tmp_path / "set/annotation_images" / record["image_path"]
    asked = ("--source", record["source_prompt"], "--target", record["target_prompt"])
    given = ("--model", model, "--image", image, *asked, "--steps", 2, "--group-steps", 2)
    assert call("edit", *given, "--out", tmp_path / "edited") == 0
    assert np.asarray(Image.open(tmp_path / "edited/edited.png")).shape == (32, 32, 3)


def test_a_dry_run_writes_nothing(call, tmp_path):
    assert call("train", "--out", tmp_path / "run", *TINY, "--dry-run") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", 0), "--count must be >= 1"),
        (("--lr", 0), "--lr must be > 0"),
        (("--scenes", "simpel"), "--scenes: expected one of simple, crowded"),
        (("--precision", "64-true"), "expected one of 32-true, bf16-mixed, 16-mixed"),
        (("--resume", "last"), "nothing to resume"),
    ],
)
def test_bad_options(call, tmp_path, capsys, arguments, message):
    assert call("train", "--out", tmp_path / "run", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
