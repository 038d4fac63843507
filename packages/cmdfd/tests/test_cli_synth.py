from __future__ import annotations

import csv
import json

import pytest
from cmdfd.options import SynthOptions
from cmdfd.prepared import detector_for, open_prepared
from cmdfd.synthesizing import recipe_of

FEW = ("--count", 6, "--people", 6, "--seconds", "1,1.2", "--size", 32, "--val-fraction", 0)


def test_a_corpus_is_made_shown_and_prepared(run_verb, tmp_path, capsys, no_pictures):
    pytest.importorskip("espeakng_loader")
    out = tmp_path / "talk"
    kinds = ("--kinds", "real,lipsync", "--unseen", "none", "--test-fraction", 0.34)
    assert run_verb("synth", "--out", out, *FEW, *kinds) == 0
    assert "6 clips of 6 people" in capsys.readouterr().out
    rows = json.loads((out / "result.json").read_text())["rows"]
    assert [(row["kind"], row["train"], row["test"]) for row in rows] == [
        ("real", 2, 1),
        ("lipsync", 2, 1),
    ]
    assert "<h2>Examples</h2>" in (out / "report.html").read_text()
    with (out / "list.csv").open(newline="") as file:
        videos = [out / row["Video_Path"] for row in csv.DictReader(file)]
    before = [video.stat().st_mtime_ns for video in videos[1:]]
    videos[0].unlink()
    assert run_verb("synth", "--out", out, *FEW, *kinds, "--resume") == 0
    assert [video.stat().st_mtime_ns for video in videos[1:]] == before
    assert run_verb("synth", "--out", out, *FEW, *kinds, "--count", 7, "--overwrite") == 0
    assert json.loads((out / "result.json").read_text())["metrics"]["clips"] == 7
    assert run_verb("prepare", out, "--size", 16, "--out", tmp_path / "cut") == 0
    clips = open_prepared(tmp_path / "cut")
    assert (clips.crop["detector"], detector_for(clips.crop)) == ("none", "lbp")
    assert {len(clips.classes(k)) == n for k, n in enumerate(clips.lengths)} == {True}


def test_options_are_a_recipe():
    recipe = recipe_of(50, ["real", "swap"], 48, 3, SynthOptions(unseen=["none"], seconds=[1, 2]))
    assert (recipe.count, recipe.kinds, recipe.unseen) == (50, ("real", "swap"), ())
    assert (recipe.seconds, recipe.quality, recipe.size, recipe.seed) == ((1, 2), (18, 28), 48, 3)
    assert recipe_of(50, None, 48, 3, SynthOptions()).kinds == ("real", "lag", "lipsync")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", 0), "--count must be >= 1"),
        (("--kinds", "real,lipsnyc"), "lipsync"),
        (("--kinds", "real"), "--kinds must have a real and a fake"),
        (("--size", 33), "--size must be even"),
        (("--seconds", "0,3"), "--seconds must be two numbers >= 1"),
        (("--seconds", "3"), "--seconds takes two numbers"),
        (("--people", 3), "people"),
        (("--val-fraction", 0.9), "--val-fraction and --test-fraction must be >= 0"),
        (("--real-share", 1), "--real-share must be in (0, 1)"),
        (("--seed", -1), "--seed must be in [0, 2^32)"),
    ],
)
def test_bad_arguments_are_told_in_one_line(run_verb, tmp_path, capsys, arguments, message):
    assert run_verb("synth", *arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("cmdfd-synth: error: ")
    assert message in error
