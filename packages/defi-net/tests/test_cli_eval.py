from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from defi_net.evaluation import read_rows, undistorted
from defi_net.localizer import Localizer
from defi_net.model import DeFINet
from defi_net.official import OUR_NAMES
from defi_net.reading import read_photo
from papercommons.files import write_csv


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def judged(call, forged, run, tmp_path_factory):
    """The test split judged as training did, with distortions."""
    out = tmp_path_factory.mktemp("eval") / "out"
    more = ("--robustness", "jpeg=90,50,resize=0.5", "--bootstrap", 50, "--out", out)
    assert call("eval", "--data", forged, "--checkpoint", run, *more) == 0
    return out


def test_the_numbers_are_those_of_training(judged, run):
    ours, theirs = undistorted(read_rows(judged / "items.csv")), read_rows(run / "items.csv")
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-6, nan_ok=True)
    for one, other in zip(result_of(judged)["rows"], result_of(run)["rows"], strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    image = result_of(judged)["metrics"]["image_threshold"]
    assert image == result_of(run)["metrics"]["image_threshold"]


def test_distortions_give_curves(judged):
    rows = read_rows(judged / "items.csv")
    assert len(rows) == 4 * 12
    found = result_of(judged)["metrics"]["robustness"]
    assert set(found) == {"imdl_f1", "imdl_false_positive_rate", "image_auc"}
    jpeg = {p["strength"]: p["value"] for p in found["imdl_f1"]["jpeg"]}
    for strength in (50.0, 90.0):
        own = [r["imdl_f1"] for r in rows if r["strength"] == strength and r["label"]]
        assert jpeg[strength] == pytest.approx(sum(own) / len(own))
    page = (judged / "report.html").read_text()
    for heading in ("After distortions: F1 (imdl)", "Example: authentic, the most suspicious"):
        assert f"<h2>{heading}</h2>" in page


def test_options_change_what_is_judged(call, forged, run, capsys):
    given = ("--data", forged, "--checkpoint", run, "--bootstrap", 10, "--json")
    more = ("--split", "val", "--protocol", "trufor", "--by", "source", "--resize", 32)
    assert call("eval", *given, *more) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"][0]["photographs"] == 8
    assert printed["rows"][0]["source"] == "all"
    assert len(printed["rows"]) == 3
    assert "F1, best threshold (trufor)" in printed["rows"][0]
    assert "seen as photographs resized to 32 x 32" in printed["notes"]
    every = ("--split", "all", "--protocol", "official", "--by", "none", "--score", "top1")
    assert call("eval", *given, *every) == 0
    printed = json.loads(capsys.readouterr().out)
    assert "MAY HAVE BEEN TRAINED ON" in printed["notes"][0]
    assert printed["metrics"]["image_threshold"]["rate"] is None
    assert [row["photographs"] for row in printed["rows"]] == [40]


def test_false_alarms_are_counted_on_val(call, forged, run, capsys):
    given = ("--data", forged, "--checkpoint", run, "--bootstrap", 10, "--json")
    values = []
    for rate in (0.0, 0.5):
        assert call("eval", *given, "--false-alarm-rate", rate, "--score", "top1") == 0
        image = json.loads(capsys.readouterr().out)["metrics"]["image_threshold"]
        assert (image["score"], image["rate"], image["photographs"]) == ("top1", rate, 3)
        values.append(image["value"])
    assert values[1] < values[0]
    assert call("eval", *given, "--false-alarm-rate", 0.1, "--split", "val") == 2
    assert "needs a val split beside the photographs judged" in capsys.readouterr().err


def test_sets_without_what_is_asked_for(call, forged, run, tmp_path, capsys):
    rows = [row for row in table(forged / "manifest.csv") if row["method"] == "patch"]
    shutil.copytree(forged, tmp_path / "set")
    manifest = tmp_path / "set/manifest.csv"
    given = ("--data", tmp_path / "set", "--checkpoint", run, "--bootstrap", 10)

    def write(kept):
        write_csv(manifest, kept)

    write(rows)
    assert call("eval", *given, "--false-alarm-rate", 0.1) == 2
    assert "has no authentic photographs" in capsys.readouterr().err
    write([row for row in rows if row["split"] == "train"])
    assert call("eval", *given) == 2
    assert "no test split; there are train; choose another" in capsys.readouterr().err
    write([{**row, "split": ""} for row in rows if row["split"] == "test"])
    assert call("eval", *given, "--split", "test") == 2
    assert "no test split; there is none" in capsys.readouterr().err
    out = tmp_path / "out"
    assert call("eval", *given, "--out", out, "--protocol", "imdl") == 0  # forged ones only
    assert "all of them" in capsys.readouterr().out
    assert result_of(out)["metrics"]["image_level"]["auc"]["value"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--robustness", "jpg=90"), "no distortion 'jpg'; did you mean jpeg"),
        (("--robustness", "jpeg=0:100"), "needs three numbers"),
        (("--robustness", "90"), "expected KIND=START:STOP:STEP"),
        (("--threshold", 1), "--threshold must be in (0, 1)"),
        (("--bootstrap", 1), "--bootstrap must be >= 10"),
        (("--tile", 64, "--resize", 64), "--tile and --resize exclude each other"),
        (("--tile", 100), "--tile must be a multiple of 8 and >= 16, got 100; the nearest is 96"),
        (("--tile", 64, "--overlap", 64), "--overlap must be 0 to 56 for --tile 64"),
        (("--protocol", "trufo"), "expected one of official, imdl, trufor, all"),
        (("--data", "nowhere"), "nowhere: no such file or folder"),
        (("--checkpoint", "nowhere"), "nowhere: no saved network"),
        (("--accelerator", "cuda"), "cannot run as asked"),
    ],
)
def test_wrong_options_are_one_line(call, forged, run, options, message, capsys):
    if options[0] == "--accelerator" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    given = {"--data": forged, "--checkpoint": run}
    more = [x for k, v in given.items() if k not in options for x in (k, v)]
    assert call("eval", *more, *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("defi-net-eval: error: ")
    assert message in line


def test_checkpoints_that_do_not_fit(call, forged, run, tmp_path, capsys):
    shutil.copytree(run / "export", tmp_path / "export")
    config = json.loads((tmp_path / "export/config.json").read_text())
    config["model"]["width"] = 6
    (tmp_path / "export/config.json").write_text(json.dumps(config))
    assert call("eval", "--data", forged, "--checkpoint", tmp_path / "export") == 2
    line = capsys.readouterr().err
    assert "does not fit DeFINet: other shape" in line
    assert "neck.top_down.reduce.0.weight (4, 6, 1, 1) instead of (6, 6, 1, 1)" in line
    assert call("eval", "--data", forged, "--checkpoint", run / "best.ckpt") == 2
    assert "no published checkpoint of DeFI-Net" in capsys.readouterr().err


def test_a_published_checkpoint_is_taken_as_it_is(call, forged, tmp_path, capsys):
    torch.manual_seed(0)
    model = DeFINet(normalization="official-test").eval()
    theirs = {ours: name for name, ours in OUR_NAMES.items()}
    weights = {}
    for name, value in model.state_dict().items():
        prefix = max((ours for ours in theirs if name.startswith(ours)), key=len)
        weights[f"module.{theirs[prefix]}{name.removeprefix(prefix)}"] = value
    torch.save(weights, tmp_path / "IID_weights.pth")
    photo = next((forged / "images").iterdir())
    given = ("--checkpoint", tmp_path / "IID_weights.pth", "--resize", 32, "--save", "prob")
    out = tmp_path / "out"
    assert call("predict", photo, *given, "--format", "npy", "--out", out) == 0
    assert "the network remembers no threshold" in capsys.readouterr().out
    wanted = Localizer(model, way="resize", size=32)(read_photo(photo))
    found = np.load(out / f"photographs/{photo.stem}_prob.npy")
    assert np.abs(found - wanted).max() < 1e-6


def test_a_result_equals_itself(call, judged, run, capsys):
    assert call("compare", judged, judged / "result.json", "--bootstrap", 20, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metrics"]["photographs"] == 12
    assert {(r["difference"], r["95 % low"], r["95 % high"]) for r in printed["rows"]} == {
        (0.0, 0.0, 0.0)
    }
    assert {row["measure"] for row in printed["rows"]} >= {"F1 (imdl)", "AUC of pixels"}


def test_a_shift_is_found_photograph_by_photograph(call, judged, tmp_path, capsys):
    rows = undistorted(read_rows(judged / "items.csv"))
    better = [
        {**row, "imdl_f1": None if row["imdl_f1"] is None else row["imdl_f1"] + 0.25}
        for row in reversed(rows[1:])
    ]
    write_csv(tmp_path / "items.csv", better)
    out = tmp_path / "out"
    given = ("--metrics", "imdl_f1,auc", "--by", "none", "--bootstrap", 20, "--out", out)
    assert call("compare", judged, tmp_path / "items.csv", *given) == 0
    assert "only in one of the two, left out: 1 and 0" in capsys.readouterr().out
    f1, auc = result_of(out)["rows"]
    assert (f1["difference"], f1["95 % low"]) == pytest.approx((0.25, 0.25))
    assert auc["difference"] == 0
    assert "Second minus first" in (out / "report.html").read_text()
    assert {row["measure"] for row in table(out / "comparison.csv")} >= {
        "F1 (official)",
        "F1 along the edge",
    }
    assert call("compare", judged, judged, "--out", out) == 2
    assert "folder is not empty; pass --overwrite" in capsys.readouterr().err


def test_results_that_cannot_be_compared(call, judged, tmp_path, capsys):
    rows = undistorted(read_rows(judged / "items.csv"))

    def said(*places, more=()):
        assert call("compare", *places, *more) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "give two results, got 1" in said(judged)
    assert "no such file or folder" in said(judged, tmp_path / "no")
    assert "no items.csv there" in said(judged, tmp_path)
    assert "no imdl_f2 in both; there are" in said(judged, judged, more=("--metrics", "imdl_f2"))
    other = tmp_path / "items.csv"
    write_csv(other, [{**row, "name": f"x{row['name']}"} for row in rows])
    assert "have no photograph in common" in said(judged, other)
    write_csv(other, [{**row, "label": 1 - row["label"]} for row in rows])
    assert "is forged in one result and authentic in the other" in said(judged, other)
    other.write_text("a,b\n1,2\n")
    assert "no column name" in said(judged, other)
