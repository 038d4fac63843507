import dataclasses
import json

import numpy as np
import pytest


def test_explain_scores_every_map_with_masks_and_slices(call, run, phantoms, tmp_path, capsys):
    table = {
        path.name.removesuffix(".nii.gz"): [3, 4, 5] for path in (phantoms / "ct").rglob("*.gz")
    }
    (tmp_path / "slices.json").write_text(json.dumps(table))
    arguments = ("--checkpoint", run, "--masks", phantoms / "masks" / "CP", "--accelerator", "cpu")
    more = ("--slices", tmp_path / "slices.json", "--steps", 3, "--out", tmp_path / "x", "--json")
    assert call("explain", phantoms / "ct" / "CP", *arguments, *more) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["map"]: row for row in result["rows"]}
    assert set(rows) == {
        *("mask", "mask-trunk", "trunk", "cam", "gradcam", "gradcam-stage1", "nonlocal"),
        *("random", "centre-of-lung"),
    }
    assert result["data_hash"]
    for name, row in rows.items():
        assert 0 <= row["pointing"] <= 1
        assert 0 <= row["slice_auc"] <= 1
        assert (row["like_untrained"] is None) == (name in ("random", "centre-of-lung"))
        assert (row["insertion"] is None) == (name == "centre-of-lung")
    assert (tmp_path / "x" / "report.html").is_file()


def test_explain_finds_a_map_that_is_the_lesion(call, run, phantoms, tmp_path, monkeypatch, capsys):
    """With the lesions themselves as a map every score is 1, whatever the file's order."""
    import nlran.explaining
    from nlran.preparation import GridMap, read_mask

    folder = phantoms / "ct" / "CP"
    scans, explain = sorted(folder.iterdir()), nlran.explaining.explain_scan

    def perfect(network, path, *arguments, **options):
        found = explain(network, path, *arguments, **options)
        lesion = read_mask(phantoms / "masks" / "CP" / path.name, found.volume)
        same, shape = (1.0, 1.0, 1.0), found.volume.array.shape
        grid = GridMap(same, (0.0, 0.0, 0.0), shape, shape)
        return dataclasses.replace(found, grid=grid, maps={"mask": lesion.astype(np.float32)})

    monkeypatch.setattr(nlran.explaining, "explain_scan", perfect)
    monkeypatch.setattr(nlran.explaining, "explain_inputs", lambda *_, **__: (None, {}))
    arguments = ("--checkpoint", run, "--masks", phantoms / "masks", "--steps", 0)
    assert call("explain", folder.parent, *arguments, "--accelerator", "cpu", "--json") == 2
    assert "both be the mask of" not in capsys.readouterr().err
    arguments = ("--checkpoint", run, "--masks", phantoms / "masks" / "CP", "--steps", 0)
    assert call("explain", *scans, *arguments, "--accelerator", "cpu", "--json") == 0
    rows = {row["map"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    for score in ("pointing", "top_k_iou", "energy_inside", "average_precision"):
        assert rows["mask"][score] == pytest.approx(1)
        assert rows["random"][score] < 0.5


def test_a_scan_is_no_lesion_mask(call, run, phantoms, capsys):
    arguments = ("--checkpoint", run, "--masks", phantoms / "ct" / "CP", "--accelerator", "cpu")
    assert call("explain", phantoms / "ct" / "CP", *arguments) == 2
    assert "expected a mask" in capsys.readouterr().err
