from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from cmdfd.measures import clip_measures
from cmdfd.saved import load_network
from papercommons.testing.networks import change_network


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def arguments(striped, striped_net):
    """Those of the run below, but for --out."""
    data = ("--data", striped, "--calibrate-on", striped / "list.csv", "--checkpoint", striped_net)
    return (*data, "--baselines", "correlation,sync", "--bootstrap", 40)


@pytest.fixture(scope="module")
def judged(call, arguments, tmp_path_factory):
    out = tmp_path_factory.mktemp("judged") / "out"
    assert call("eval", *arguments, "--out", out) == 0
    return out


def numbers(folder):
    (found,) = result_of(folder)["metrics"]["lists"].values()
    return found


def test_the_test_part_is_judged_by_a_threshold_of_the_val_part(judged):
    metrics, found = result_of(judged)["metrics"], numbers(judged)
    assert (found["clips"], found["fake"], found["real"]) == (16, 8, 8)
    assert (metrics["calibration"]["fake"], metrics["calibration"]["real"]) == (4, 4)
    assert metrics["threshold"] == found["threshold"] != 0
    assert set(found["measures"]) == {"all", "partial", "whole"}
    assert found["measures"]["whole"]["auc"]["value"] == 1
    assert found["measures"]["all"]["balanced_accuracy"]["value"] > 0.9


def test_numbers_follow_from_items_csv(judged):
    rows = rows_of(judged / "items.csv")
    found, metrics = numbers(judged), result_of(judged)["metrics"]
    scores = np.array([float(row["score"]) for row in rows])
    fake = np.array([row["label"] == "fake" for row in rows])
    called = np.array([row["prediction"] == "fake" for row in rows])
    assert (called == (scores > found["threshold"])).all()
    for at, kept in (
        (found["threshold"], found["measures"]["all"]),
        (0.0, found["at_threshold_0"]),
    ):
        for name, value in clip_measures(scores, fake, threshold=at).items():
            assert kept[name]["value"] == pytest.approx(value, abs=1e-6), name
            assert kept[name]["low"] <= kept[name]["high"]
    llr = metrics["calibration"]["slope"] * scores + metrics["calibration"]["intercept"]
    p = np.array([float(row["p"]) for row in rows])
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-llr)), atol=1e-5)
    for name in ("correlation", "sync"):
        assert 0 <= found["baselines"][name] <= 1


def test_what_lengths_give_away_stands_beside_and_parts_are_found(judged):
    found, result = numbers(judged), result_of(judged)
    assert found["lengths_alone"]["all"]["auc"] == 0.5
    assert all("lengths alone" in row for row in result["rows"])
    assert found["localisation"]["ap@0.5"] > 0.9
    assert found["localisation"]["ar@5"] > 0.6
    partial = [row for row in rows_of(judged / "items.csv") if row["method"] == "partial"]
    begin, end = map(float, partial[0]["parts"].split("-"))
    assert abs(begin - 0.4) < 0.25
    assert abs(end - 1.2) < 0.25
    page = (judged / "report.html").read_text()
    for heading in ("ROC curves", "Calibration", "scores", "forged parts"):
        assert heading in page
    assert any("INDEPENDENT SOURCES" in note for note in result["notes"])


def test_a_run_goes_on_from_what_it_scored(call, judged, arguments, tmp_path, monkeypatch):
    out = shutil.copytree(judged, tmp_path / "out")
    config = out / "config.yaml"
    config.write_text(config.read_text().replace(str(judged), str(out)))
    (kept,) = [path for path in (out / "curves").iterdir() if "calibration" not in path.name]
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join([*lines[:-2], lines[-1][:40]]))
    for name in ("items.csv", "result.json", "report.html"):
        (out / name).unlink()
    seen = []
    from cmdfd.scoring import Detector

    judge = Detector.judge
    monkeypatch.setattr(
        Detector, "judge", lambda self, m, f: seen.append(len(f)) or judge(self, m, f)
    )
    assert call("eval", *arguments, "--out", out) == 2
    assert call("eval", *arguments, "--out", out, "--resume") == 0
    assert sum(seen) == 2
    assert (out / "items.csv").read_text() == (judged / "items.csv").read_text()
    assert result_of(out)["rows"] == result_of(judged)["rows"]


def test_another_network_is_no_resumption_and_no_calibration(
    call, judged, arguments, striped, striped_net, tmp_path, capsys
):
    other = shutil.copytree(striped_net, tmp_path / "net")
    change_network(other)
    calibration = ("--calibration", judged)
    few = ("--data", striped, "--bootstrap", 10)
    assert call("eval", *few, "--checkpoint", other, *calibration) == 2
    assert "was fitted to another network" in capsys.readouterr().err
    words = ("--checkpoint", striped_net, "--split", "val", "--json", *calibration)
    assert call("eval", *few, *words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["threshold"] == result_of(judged)["metrics"]["threshold"]


def test_prepared_lists_checkpoints_of_runs_and_bad_clips(
    call, judged, striped, striped_net, tmp_path, capsys
):
    """A prepared folder gives the scores of the raw list; a broken clip stops, or is left out."""
    (cache,) = [p for p in (judged / "cache").iterdir() if len(rows_of(p / "list.csv")) == 16]
    net, config = load_network(striped_net)
    run = tmp_path / "run"
    (run / "export").mkdir(parents=True)
    shutil.copy(striped_net / "config.json", run / "export")
    weights = {f"net.{name}": value for name, value in net.state_dict().items()}
    kept = {"state_dict": weights, "hyper_parameters": {"net": config["model"]}}
    torch.save(kept, run / "last.ckpt")
    bad = tmp_path / "bad.csv"
    (tmp_path / "broken.mp4").write_bytes((striped / "test_08.mp4").read_bytes()[:3000])
    shutil.copy(striped / "test_09.mp4", tmp_path / "fine.mp4")
    shutil.copy(striped / "test_10.mp4", tmp_path / "real.mp4")
    bad.write_text("path,label\nbroken.mp4,0\nfine.mp4,1\nreal.mp4,0\n")
    network = ("--checkpoint", run / "last.ckpt", "--bootstrap", 10, "--threshold", 0.5)
    assert call("eval", "--data", bad, *network) == 2
    assert "broken.mp4" in capsys.readouterr().err
    assert call("eval", "--data", f"{cache},{bad}", *network, "--skip-bad", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    lists = result["metrics"]["lists"]
    assert list(lists) == [cache.name, "bad"]
    assert lists[cache.name]["measures"]["all"]["auc"]["value"] == pytest.approx(
        numbers(judged)["measures"]["all"]["auc"]["value"]
    )
    assert lists["bad"]["clips"] == 2
    assert result["metrics"]["left_out"] == 1
    assert any(note.startswith("left out:") and "broken.mp4" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--checkpoint", "{striped}"), "no saved network"),
        (("--data", "no.csv"), "no.csv: no such file or folder"),
        (("--calibrate-on", "no.csv"), "no.csv: no such file or folder"),
        (("--calibration", "no.json"), "no.json: no such file"),
        (("--threshold", "nan"), "--threshold: expected float"),
        (("--bootstrap", 1), "--bootstrap must be >= 10"),
        (("--window", 0), "--window must be in [0.2, 60]"),
        (("--hop", 9), "--hop must be in [0.04, --window 5]"),
        (("--part-gap", -1), "--part-gap must be in [0, 60]"),
        (("--face", 0), "--face must be largest or a number"),
        (("--frames-per-batch", 0), "--frames-per-batch must be >= 1"),
        (("--baselines", "divergence"), "--baselines divergence and --teacher go together"),
        (("--baselines", "divergence", "--teacher", "hf:no"), "hf:no: has no lip reader"),
        (("--baselines", "snyc"), "expected comma-separated of correlation, sync, divergence"),
        (("--resume",), "--resume goes on with the run in --out"),
        (("--split", "train"), "no split train: it has test, val"),
        (("--calibrate-on", "{striped}", "--split", "val"), "share clips"),
    ],
)
def test_bad_options_are_told_in_one_line(
    call, striped, striped_net, tmp_path, capsys, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    words = [str(word).format(striped=striped) for word in words]
    given = {"--data": striped, "--checkpoint": striped_net}
    more = [str(x) for k, v in given.items() if k not in words for x in (k, v)]
    assert call("eval", *more, *words) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert list(tmp_path.iterdir()) == []
