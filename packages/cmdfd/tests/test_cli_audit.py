from __future__ import annotations

import json

import numpy as np
import pytest
from cmdfd.lists import OFFICIAL
from papercommons.files import write_csv


@pytest.fixture
def leaking(tmp_path):
    """An official list whose fakes have 0.1 s more of sound."""
    rng, rows = np.random.default_rng(0), []
    for number in range(40):
        fake = number % 2
        samples = round(64_000 + 1600 * fake + 100 * rng.standard_normal())
        values = (
            f"c{number}",
            "a.wav",
            f"{number}.mp4",
            fake,
            "",
            "",
            "",
            "",
            100.0,
            samples,
            25.0,
        )
        rows.append(dict(zip(OFFICIAL, (*values, 16_000), strict=True)))
    write_csv(tmp_path / "list.csv", rows)
    return tmp_path / "list.csv"


def test_a_leak_is_told_and_shown(run_verb, leaking, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_verb("audit", leaking, "--bootstrap", 50, "--out", out) == 0
    assert "leak: longer sound" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["metrics"]["auc"] > 0.99
    assert "<h2>Sound minus picture</h2>" in (out / "report.html").read_text()
    assert run_verb("audit", leaking, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_lengths_are_measured_in_files(run_verb, striped, capsys):
    assert run_verb("audit", striped, "--bootstrap", 20) == 2
    assert "pass --measure" in capsys.readouterr().err
    assert run_verb("audit", striped, "--measure", "--bootstrap", 20, "--json") == 0
    assert abs(json.loads(capsys.readouterr().out)["metrics"]["auc"] - 0.5) < 0.1


def test_of_prepared_clips_the_files_they_were_made_of_count(run_verb, talking_set, capsys):
    assert run_verb("audit", talking_set, "--bootstrap", 20, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "originals.csv" in found["title"]
    assert run_verb("audit", talking_set / "list.csv", "--bootstrap", 20, "--json") == 0
    assert json.loads(capsys.readouterr().out)["data_hash"] == found["data_hash"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a list"),
        (("no.csv",), "no.csv: no such file or folder"),
        (("{file}", "--bootstrap", 2), "--bootstrap must be >= 10"),
        (("{file}", "--root", "no"), "no such folder"),
        (("{file}", "--layout", "lists"), "layout"),
    ],
)
def test_bad_arguments_are_told_in_one_line(run_verb, leaking, capsys, arguments, message):
    assert run_verb("audit", *(str(word).format(file=leaking) for word in arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("cmdfd-audit: error: ")
    assert message in error
