import csv
import json
import shutil

import nibabel
import numpy as np
import pytest
from papercommons.testing.networks import change_network


def test_prediction_writes_a_heat_map_on_the_grid_of_each_scan(
    call, run, phantoms, tmp_path, capsys
):
    out = tmp_path / "p"
    arguments = ("--checkpoint", run, "--out", out, "--accelerator", "cpu", "--json")
    assert call("predict", phantoms / "ct" / "CP", *arguments) == 0
    result = json.loads(capsys.readouterr().out)
    scans = sorted((phantoms / "ct" / "CP").iterdir())
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(map(str, scans))
    assert all("not a medical device" in row["use"] for row in rows)
    for scan, row in zip(scans, rows, strict=True):
        own, heat = nibabel.load(scan), nibabel.load(out / row["heatmap"])
        assert heat.shape == own.shape
        np.testing.assert_allclose(heat.affine, own.affine)
        values = heat.get_fdata()
        assert values.min() >= 0
        assert 0.8 < values.max() <= 1
        assert b"research use only" in bytes(heat.header["descrip"])
        assert sum(float(row[f"p({c})"]) for c in ("NCP", "CP", "Normal")) == pytest.approx(
            1, abs=1e-5
        )
        page = (out / row["page"]).read_text()
        assert "not a medical device" in page
        assert "http" not in page.replace("http-equiv", "")
    assert result["metrics"]["scans"] == 6


def test_prediction_goes_on_where_it_was_interrupted(
    call, run, phantoms, tmp_path, capsys, monkeypatch
):
    import nlran.predicting

    scans, out, calls = tmp_path / "scans", tmp_path / "p", []
    shutil.copytree(phantoms / "ct" / "CP", scans)
    explain = nlran.predicting.explain_scan

    def counted(network, scan, *arguments, **options):
        calls.append(scan)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return explain(network, scan, *arguments, **options)

    monkeypatch.setattr(nlran.predicting, "explain_scan", counted)
    network = shutil.copytree(run, tmp_path / "network")
    arguments = (scans, "--checkpoint", network, "--out", out, "--no-controls")
    assert call("predict", *arguments, "--accelerator", "cpu") == 1
    assert call("predict", *arguments, "--accelerator", "cpu", "--resume") == 0
    assert len(calls) == 7
    shutil.copy(next((phantoms / "ct" / "NCP").iterdir()), scans / "extra.nii.gz")
    assert call("predict", *arguments, "--accelerator", "cpu", "--resume") == 0
    assert len(calls) == 8
    assert len((out / "predictions.csv").read_text().splitlines()) == 8
    change_network(network)
    assert call("predict", *arguments, "--accelerator", "cpu", "--resume") == 2
    assert "cannot resume: weights was" in capsys.readouterr().err


def test_a_broken_scan_stops_prediction_or_is_named_and_skipped(
    call, run, phantoms, tmp_path, capsys
):
    scans = tmp_path / "scans"
    scans.mkdir()
    good = next((phantoms / "ct" / "CP").iterdir())
    (scans / "good.nii.gz").write_bytes(good.read_bytes())
    (scans / "bad.nii.gz").write_bytes(good.read_bytes()[:2000])
    arguments = (scans, "--checkpoint", run, "--accelerator", "cpu")
    assert call("predict", *arguments, "--out", tmp_path / "a") == 2
    assert "bad.nii.gz" in capsys.readouterr().err
    assert call("predict", *arguments, "--out", tmp_path / "b", "--skip-bad") == 0
    said = capsys.readouterr()
    assert "left out:" in said.out
    assert "bad.nii.gz" in said.out


def test_cam_explains_the_class_that_is_asked_for(call, run, phantoms, tmp_path):
    scan = next((phantoms / "ct" / "CP").iterdir())
    maps = []
    for name in ("NCP", "Normal"):
        out = tmp_path / name
        arguments = ("--checkpoint", run, "--out", out, "--accelerator", "cpu", "--overlay", "none")
        assert call("predict", scan, *arguments, "--heatmap", "cam", "--explain-class", name) == 0
        assert not list(out.rglob("*.png"))
        maps.append(nibabel.load(next(out.glob("scans/*.nii.gz"))).get_fdata())
    assert np.abs(maps[0] - maps[1]).max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--heatmap", "mask"), "--heatmap mask: plain3d has cam, gradcam"),
        (("--explain-class", "X"), "--explain-class X: there are NCP, CP, Normal"),
    ],
)
def test_what_a_network_lacks_is_named(
    call, train_small, options, message, phantoms, tmp_path, capsys
):
    arguments = ("--data", phantoms / "ct", "--split-by", "none", "--limit", 3, "--epochs", 1)
    out = tmp_path / "run"
    assert train_small(*arguments, "--out", out, "--network", "plain3d") == 0
    scan = next((phantoms / "ct" / "CP").iterdir())
    assert call("predict", scan, "--checkpoint", out, "--out", tmp_path / "p", *options) == 2
    assert message in capsys.readouterr().err


def test_a_lung_mask_for_several_scans_is_refused(call, run, phantoms, tmp_path, capsys):
    mask = next((phantoms / "masks" / "CP").iterdir())
    arguments = ("--checkpoint", run, "--out", tmp_path / "p", "--lung-mask", mask)
    assert call("predict", phantoms / "ct" / "CP", *arguments) == 2
    assert "one mask for 6 scans" in capsys.readouterr().err


def test_a_failed_start_does_not_block_the_next(call, run, phantoms, tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"x")
    out = tmp_path / "p"
    arguments = ("--checkpoint", run, "--out", out, "--accelerator", "cpu")
    assert call("predict", tmp_path / "bad.nii.gz", *arguments) == 2
    assert call("predict", next((phantoms / "ct" / "CP").iterdir()), *arguments) == 0


def test_a_command_does_not_overwrite_what_it_reads(call, run, phantoms, capsys):
    before = sorted(run.rglob("*"))
    for verb, given in (("predict", (phantoms / "ct" / "CP",)), ("explain", (phantoms / "ct",))):
        arguments = (*given, "--checkpoint", run / "export", "--out", run, "--overwrite")
        assert call(verb, *arguments) == 2
        assert "--overwrite would delete" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before
