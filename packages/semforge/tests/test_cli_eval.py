from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from papercommons.cli import ComputeOptions
from papercommons.metrics.roc import weighted_auc
from semforge.crop_settings import crop_of_photographs, crop_way, describe_crop
from semforge.data import FaceForgeryData
from semforge.evaluating import judge
from semforge.inspector import open_inspector


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def judged(call, run, drawn, tmp_path_factory):
    out = tmp_path_factory.mktemp("judged") / "out"
    options = ("--robustness", "jpeg=50,noise", "--resample", "identity", "--bootstrap", 40)
    arguments = ("--data", drawn, "--checkpoint", run, "--out", out, *options)
    assert call("eval", *arguments) == 0
    return out


def test_it_finds_what_training_found(judged, run):
    ours, theirs = result_of(judged)["metrics"], result_of(run)["metrics"]
    for name in ("nodes", "methods", "map_state", "counts", "ece", "ece_calibrated"):
        assert ours[name] == theirs[name], name
    for what in ("faces", "videos"):
        for name, estimate in ours[what].items():
            assert estimate["value"] == theirs[what][name]["value"]
    assert ours["threshold_log_odds"] == pytest.approx(theirs["threshold_log_odds"])
    assert (judged / "items.csv").read_text() == (run / "items.csv").read_text()


def test_numbers_follow_from_faces_csv(judged):
    with (judged / "items.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = result_of(judged)["metrics"]
    fake = torch.tensor([row["label"][0] == "1" for row in rows])
    odds = torch.tensor([float(row["log_odds"]) for row in rows], dtype=torch.double)
    assert metrics["faces"]["auc"]["value"] == pytest.approx(float(weighted_auc(odds, fake)))
    called = odds >= metrics["threshold_log_odds"]
    accuracy = float((called == fake).double().mean())
    assert metrics["faces"]["accuracy"]["value"] == pytest.approx(accuracy)
    p = torch.tensor([float(row["p_fake"]) for row in rows])
    torch.testing.assert_close(p, odds.sigmoid().float(), atol=1e-5, rtol=0)
    videos = sorted({row["video"] for row in rows})
    means = torch.stack([p[[r["video"] == v for r in rows]].mean() for v in videos])
    truth = torch.tensor(
        [any(r["label"][0] == "1" for r in rows if r["video"] == v) for v in videos]
    )
    expected = float(weighted_auc(means, truth))
    assert metrics["videos"]["auc"]["value"] == pytest.approx(expected)
    exact = sum(row["label"] == row["decoded"] for row in rows) / len(rows)
    assert metrics["map_state"]["exact"] == pytest.approx(exact)
    assert set(metrics["methods"]) == {"real", "ageing", "smiling", "pale"}


def test_curves_after_distortions(judged):
    curves = result_of(judged)["metrics"]["robustness"]
    assert list(curves) == ["none", "jpeg=50", "noise=2", "noise=5", "noise=10", "noise=20"]
    assert curves["none"]["auc"] == result_of(judged)["metrics"]["faces"]["auc"]["value"]
    page = (judged / "report.html").read_text()
    assert "<h2>After JPEG, resizing, blur and noise</h2>" in page
    assert "ONLY 4 INDEPENDENT SOURCES" in page


class Black:
    """Leaves nothing to see."""

    def __call__(self, image, rng):
        return np.zeros_like(image)

    def __str__(self):
        return "black"


def test_a_distortion_is_done_to_each_face(run, drawn):
    inspector = open_inspector(str(run), ComputeOptions(accelerator="cpu"))
    data = FaceForgeryData(drawn, graph=inspector.net.graph, size=32)
    found = judge(inspector, data, "val", robustness=[Black()], draws=10)
    assert found.curves["none"]["auc"] > 0.9
    assert found.curves["black"]["auc"] == 0.5


def test_a_threshold_and_a_split_of_one_s_own(call, run, drawn, capsys):
    arguments = ("--data", drawn, "--checkpoint", run, "--bootstrap", 10, "--json")
    assert call("eval", *arguments, "--threshold", 0.9, "--split", "all") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["counts"]["faces"] == 128
    assert result["metrics"]["threshold_log_odds"] == pytest.approx(2.197, abs=1e-3)
    assert any("MAY HAVE BEEN TRAINED ON" in note for note in result["notes"])
    assert result["metrics"]["map_state"]["wholly_known"] == 96


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint", "{drawn}"), "no saved network"),
        (("--data", "no.txt"), "no.txt: no such file or folder"),
        (("--threshold", 1), "--threshold must be in (0, 1)"),
        (("--bootstrap", 1), "--bootstrap must be >= 10"),
        (("--batch-size", 0), "--batch-size must be >= 1"),
        (("--robustness", "jpg=50"), "no distortion 'jpg'; did you mean jpeg"),
        (("--boxes", "{drawn}/list.csv"), "--boxes goes with --crop boxes"),
        (("--crop", "boxes", "--boxes", "{drawn}/list.csv"), "so --crop boxes would show it"),
        (("--data", "{list}", "--split", "val"), "no split val: it has no splits"),
    ],
)
def test_bad_options_are_told_in_one_line(
    call, run, drawn, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(drawn / "test000.png", tmp_path)
    (tmp_path / "list.txt").write_text("test000.png 0\n")
    words = [str(w).format(drawn=drawn, list=tmp_path / "list.txt") for w in arguments]
    defaults = {"--data": drawn, "--checkpoint": run, "--out": tmp_path / "out"}
    more = [x for k, v in defaults.items() if k not in words for x in (k, v)]
    assert call("eval", *words, *more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("semforge-eval: error: ")
    assert message in error


def test_a_network_for_another_graph(call, run, drawn, tmp_path, capsys):
    shutil.copytree(run / "export", tmp_path / "net")
    (tmp_path / "ten.txt").write_text(f"{drawn}/test000.png 1010111111\n")
    arguments = ("--data", tmp_path / "ten.txt", "--root", "/", "--checkpoint", tmp_path / "net")
    assert call("eval", *arguments) == 2
    assert "ffsc has 12 nodes" in capsys.readouterr().err


BEFORE = {"crop": "none", "size": 64, "detector": None}
FOUND = {"crop": "detect", "size": 64, "detector": "mtcnn"}
BOXES = {"crop": "boxes", "size": 64, "detector": None}


def test_faces_are_cut_as_in_training():
    def way(trained, crop, boxes=None):
        return crop_way({"crop": trained}, 64, crop, boxes)

    assert way(FOUND, None)["detector"] == "mtcnn"
    assert way(FOUND, "detect") == way(FOUND, None)
    assert way(FOUND, "none")["crop"] == "none"
    assert way(BEFORE, None) == {"crop": "none", "size": 64, "detector": "lbp", "boxes": None}
    known = {**BEFORE, "cut_by": "mtcnn"}
    assert (way(known, "detect")["crop"], way(known, "detect")["detector"]) == ("detect", "mtcnn")
    for trained, crop in ((BEFORE, "detect"), (BOXES, "detect")):
        with pytest.raises(ValueError, match=f"so --crop {crop} would show it something else"):
            way(trained, crop)
    assert crop_of_photographs({"crop": known}) == crop_of_photographs({"crop": FOUND}) == "detect"
    with pytest.raises(ValueError, match=r"cut before .* and does not know by what; .* --no-crop"):
        crop_of_photographs({"crop": BEFORE})
    with pytest.raises(ValueError, match="give --boxes FILE"):
        crop_of_photographs({"crop": BOXES})
    for config in ({}, {"crop": "detect"}, {"crop": {"crop": 5}}):
        with pytest.raises(ValueError, match="no entry crop"):
            crop_of_photographs(config)
    assert "found by the detector mtcnn" in describe_crop(FOUND)
    assert "given boxes" in describe_crop(BOXES)
