"""`d-tiil-eval`, `-calibrate` and `-make-pairs`, from made-up findings to numbers known before."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from d_tiil import Calibration
from d_tiil.finding_files import FindingSet
from d_tiil.layouts import open_pairs
from PIL import Image


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def pairs(call, tmp_path_factory):
    """Six changes of two kinds, each a consistent and an inconsistent pair; two for thresholds."""
    out = tmp_path_factory.mktemp("pairs") / "set"
    asked = ("--kinds", "color,background", "--parts", "consistent,caption", "--count", 3)
    assert call("make-pairs", "--out", out, *asked, "--calibration", 2) == 0
    return out


def find_all(data, folder, score, *, masked=True, features=True):
    """Write findings: the score of a record, the true mask but for its first row, its words."""
    folder.mkdir()
    lines = []
    for record in open_pairs(data):
        value = float(score(record))
        line = {"id": record.name, "caption": record.caption, "score": value}
        if features:
            line |= {"features": {"gap": value, "relative_gap": 0.5, "clip_region": -value}}
            line |= {"made_with": {"gap": "abc", "clip_region": "def"}}
        if masked and record.inconsistent:
            mask = record.true_mask((32, 32)).copy()
            mask[np.flatnonzero(mask.any(1))[0]] = False
            Image.fromarray(mask.astype(np.uint8) * 200).save(folder / f"{record.name}.png")
            line |= {"map": f"{record.name}.png", "mask": f"{record.name}.png"}
            line |= {"words": [[w.start, w.end] for w in record.words]}
            line |= {"top": line["words"][0]}
        lines.append(line)
    (folder / "findings.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    return folder


@pytest.fixture(scope="module")
def findings(pairs, tmp_path_factory):
    """Findings that tell all pairs apart but one."""
    fooled = []

    def score(record):
        if record.inconsistent and record.split == "test" and not fooled:
            fooled.append(record.name)
        return 0.1 if record.name in fooled or not record.inconsistent else 0.9

    return find_all(pairs, tmp_path_factory.mktemp("findings") / "good", score)


def test_measures_of_known_findings(call, pairs, findings, tmp_path):
    out = tmp_path / "out"
    given = ("--data", pairs, "--predicted", f"mine={findings}", "--out", out)
    asked = ("--split", "test", "--threshold-split", "val", "--bootstrap", 20)
    assert call("eval", *given, *asked) == 0
    result = result_of(out)
    rows = {row["method"]: row for row in result["rows"]}
    assert list(rows) == ["mine", "full mask", "random"]
    records = [r for r in open_pairs(pairs).of_split("test") if r.inconsistent]
    shares = []
    for record in records:
        mask = record.true_mask((32, 32))
        first = mask[np.flatnonzero(mask.any(1))[0]].sum()
        shares.append(1 - first / mask.sum())
    assert rows["mine"]["IoU"] == pytest.approx(np.mean(shares))
    assert rows["mine"]["word top-1"] == 1
    assert rows["mine"]["detection AUC"] == pytest.approx((5 + 0.5) / 6)
    assert rows["mine"]["accuracy"] == pytest.approx(11 / 12)
    whole = np.mean([record.true_mask((32, 32)).mean() for record in records])
    assert rows["full mask"]["IoU"] == pytest.approx(whole)
    assert rows["full mask"]["detection AUC"] == 0.5
    assert set(result["metrics"]["methods"]["mine"]["groups"]) >= {"color", "background"}
    assert len((out / "items.csv").read_text().splitlines()) == 1 + 3 * 12
    with (out / "items.csv").open(newline="") as file:
        items = [row for row in csv.DictReader(file) if row["method"] == "mine"]
    assert sum(row["label"] == row["prediction"] for row in items) == 11
    page = (out / "report.html").read_text()
    assert "Kind: color" in page
    assert page.count("data:image/png;base64") == 6


def test_nothing_is_written_unasked(call, pairs, findings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ("--data", pairs, "--predicted", findings, "--bootstrap", 20, "--no-trivial")
    assert call("eval", *given, "--kinds", "color", "--json") == 0
    assert [row["method"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["good"]
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_is_what_the_labels_say(call, pairs, findings, tmp_path):
    out = tmp_path / "out"
    given = ("--data", pairs, "--predicted", findings, "--split", "val")
    assert call("calibrate", *given, "--out", out) == 0
    made = Calibration.load(out / "calibration.json")
    assert (made.feature, made.made_with, made.auc, made.pairs) == ("gap", "abc", 1.0, 8)
    assert made.is_consistent(made.consistency({"gap": 0.1}))
    assert not made.is_consistent(made.consistency({"gap": 0.9}))
    assert 0 < made.map_threshold < 200 / 255
    assert result_of(out)["metrics"]["accuracy"] == 1
    asked = ("--feature", "relative_gap", "--no-locate", "--out", tmp_path / "none")
    assert call("calibrate", *given, *asked) == 0
    dull = Calibration.load(tmp_path / "none/calibration.json")
    assert (dull.slope, dull.map_threshold, dull.made_with) == (0, None, "")
    asked = ("--feature", "clip_region", "--out", tmp_path / "clip")
    assert call("calibrate", *given, *asked) == 0
    clip = Calibration.load(tmp_path / "clip/calibration.json")
    assert (clip.map_threshold, clip.made_with) == (None, "def")  # it depends on the threshold


def test_pictures_of_other_programs(pairs, tmp_path):
    folder = find_all(pairs, tmp_path / "other", lambda record: 0.5, masked=False)
    record = next(record for record in open_pairs(pairs) if record.inconsistent)
    mask = record.true_mask((32, 32))
    Image.fromarray(mask.astype(np.uint8)).save(folder / "ones.png")
    Image.fromarray(mask.astype(np.uint16) * 0x80FF).save(folder / "deep.png")
    found = FindingSet.open("other", folder)
    found.lines[record.name].update(mask="ones.png", map="deep.png")
    finding = found.finding(record)
    assert (finding.mask == mask).all()
    assert (finding.map == mask * np.uint8(0x80)).all()


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("eval", ("--predicted", "nowhere"), "nowhere: no such folder"),
        ("eval", ("--predicted", ""), "--predicted is empty"),
        ("eval", ("--predicted", "=."), "--predicted: a folder is called ''"),
        ("eval", ("--predicted", "a=.,a=.."), "--predicted: two folders are called 'a'"),
        ("eval", ("--predicted", "random=."), "--predicted: 'random' is judged already"),
        ("eval", ("--threshold-split", "val"), "must be another split than --split"),
        ("eval", ("--split", "train"), "no records of split 'train'"),
        ("eval", ("--bootstrap", 1), "--bootstrap must be >= 10"),
        ("eval", ("--threshold", 0), "--threshold must be in (0, 1)"),
        ("eval", ("--data", "nowhere"), "nowhere: no such file or folder"),
        ("calibrate", ("--predicted", "nowhere"), "nowhere: no such folder"),
        (
            "calibrate",
            ("--feature", "clip_pair"),
            "have only gap, relative_gap, clip_region",
        ),
    ],
)
def test_bad_options(call, pairs, findings, tmp_path, capsys, verb, arguments, message):
    given = ("--data", pairs, "--predicted", findings, "--out", tmp_path / "out")
    assert call(verb, *given, *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "high"}, "'high' is no number"),
        ({"score": 10**400}, "is no number"),
        ({"map": "../../set/pairs.jsonl"}, "leads out of"),
        ({"map": "missing.png"}, "missing.png"),
        ({"words": [[5, 5000]]}, "is no place [start, end]"),
        ({"id": 3}, "needs an object with id and caption"),
    ],
)
def test_broken_findings(call, pairs, tmp_path, capsys, change, message):
    folder = find_all(pairs, tmp_path / "broken", lambda record: 0.5, masked=False)
    path = folder / "findings.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0] |= change
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert call("eval", "--data", pairs, "--predicted", folder, "--bootstrap", 20) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["images/color-val-0000-before.png", "masks"])
def test_pairs_that_cannot_be_read_are_left_out(call, pairs, findings, tmp_path, capsys, broken):
    copy = tmp_path / "copy"
    shutil.copytree(pairs, copy)
    path = copy / broken
    path = next(path.glob("*val*")) if path.is_dir() else path
    path.write_bytes(path.read_bytes()[:60])
    given = ("--data", copy, "--predicted", findings, "--split", "val")
    lost = 2 if "images" in broken else 1
    assert call("eval", *given, "--bootstrap", 20, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert (metrics["pairs"], metrics["defects"]) == (8 - lost, lost)
    assert call("calibrate", *given, "--out", tmp_path / "made") == 0
    assert Calibration.load(tmp_path / "made/calibration.json").pairs == 8 - lost
    assert call("eval", *given, "--strict") == 2
    assert path.name in capsys.readouterr().err


def test_pairs_without_findings(call, pairs, tmp_path, capsys):
    folder = find_all(pairs, tmp_path / "part", lambda record: 0.5, features=False)
    path = folder / "findings.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    given = ("--data", pairs, "--predicted", folder)
    assert call("eval", *given, "--bootstrap", 20, "--out", tmp_path / "out") == 0
    assert result_of(tmp_path / "out")["metrics"]["defects"] == 1
    assert "says nothing of it" in (tmp_path / "out/defects.csv").read_text()
    assert call("eval", *given, "--strict") == 2
    assert "leave out --strict" in capsys.readouterr().err
    assert call("calibrate", *given, "--out", tmp_path / "made") == 2
    assert "has no features" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", -1), "--count must be >= 0, got -1"),
        (("--count", 0, "--calibration", 0), "--count must be > 0 where calibration is 0"),
        (("--noise", 0), "--noise must be > 0"),
        (("--kinds", "colour"), "--kinds must be of"),
        (("--kinds", "colour"), "did you mean color?"),
        (("--kinds", "texture"), "--kinds texture: simple scenes have one texture"),
        (("--scenes", "simple", "--held-out"), "--held-out needs crowded scenes"),
    ],
)
def test_pairs_that_cannot_be_made(call, tmp_path, capsys, arguments, message):
    assert call("make-pairs", "--out", tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
