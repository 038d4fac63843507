from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
from defi_net.layouts import find_samples
from defi_net.synthesizing import pair


def manifest(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_made_can_be_read_and_shares_no_photograph(forged):
    samples = find_samples(forged)
    assert len(samples) == 40
    sources = {s: {x.source for x in samples if x.split == s} for s in ("train", "val", "test")}
    assert [len(found) for found in sources.values()] == [5, 2, 3]
    assert len(set.union(*sources.values())) == 10
    assert {sample.method for sample in samples} == {"patch", "authentic"}
    result = json.loads((forged / "result.json").read_text())
    assert result["metrics"] == {"pictures": 40, "sources": {"train": 5, "val": 2, "test": 3}}
    row = next(row for row in result["rows"] if row["method"] == "patch")
    made = [sample for sample in samples if sample.method == "patch"]
    assert row["train"] + row["val"] + row["test"] == len(made)
    areas = [float(r["area"]) for r in manifest(forged) if r["method"] == "patch"]
    assert row["mean area"] == pytest.approx(sum(areas) / len(areas))
    page = (forged / "report.html").read_text()
    assert page.count("data:image/png") == 2
    assert result["seed"] == 0


def test_options_reach_the_pictures(call, photos, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--engines", "patch", "--masks", "box", "--size", 0, "--authentic", 0)
    post = ("--jpeg", "70,80", "--blur", 0.5, "--area", "0.1,0.2", "--format", "webp")
    shares = ("--val-fraction", 0, "--test-fraction", 0.3, "--seed", 3, "--json")
    assert call("synth", "--images", photos, "--out", out, *options, *post, *shares) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metrics"]["sources"] == {"train": 7, "val": 0, "test": 3}
    assert printed["seed"] == 3
    for row in manifest(out):
        assert row["post"].startswith("blur=0.5;jpeg=7") or row["post"].endswith("jpeg=80")
        assert 0.08 <= float(row["area"]) <= 0.22
        assert row["image"].endswith(".webp")


def test_a_finished_set_is_not_written_over(call, photos, forged, capsys):
    before = (forged / "manifest.csv").read_bytes()
    assert call("synth", "--images", photos, "--out", forged) == 2
    assert "pass --resume, --overwrite" in capsys.readouterr().err
    assert (forged / "manifest.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engines", "telia"), "no engine 'telia'; did you mean telea"),
        (("--engines", "patch", "--mode", "fr"), "mode fr needs an engine"),
        (("--engines", "patch", "--area", "0.4,0.1"), "area must be"),
        (("--engines", "patch", "--area", "0.1,0.2,0.3"), "--area must be LEAST,GREATEST"),
        (("--engines", "patch", "--masks", "file"), "masks from files need mask_folder"),
        (("--engines", "patch", "--masks", "star"), "no mask 'star'"),
        (("--engines", "patch", "--jpeg", "0,50"), "jpeg must be within 1 to 100"),
        (("--engines", "patch", "--size", 400), "too small for --size 400"),
        (("--engines", "patch", "--per-image", 0), "--per-image must be >= 1, got 0"),
        (
            ("--engines", "patch", "--val-fraction", 0.6, "--test-fraction", 0.6),
            "sum to less than 1",
        ),
        (("--engines", "patch", "--resume"), "nothing to resume"),
    ],
)
def test_wrong_options_are_one_line(call, photos, tmp_path, options, message, capsys):
    assert call("synth", "--images", photos, "--out", tmp_path / "out", *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("defi-net-synth: error: ")
    assert message in line


def test_photographs_are_checked(call, write_photos, tmp_path, capsys):
    options = ("--engines", "patch", "--size", 64, "--val-fraction", 0, "--test-fraction", 0)
    assert call("synth", "--images", tmp_path / "no", *options, "--out", tmp_path / "o") == 2
    assert "no such file or folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert call("synth", "--images", tmp_path / "empty", *options, "--out", tmp_path / "o") == 2
    assert "no images in it" in capsys.readouterr().err
    folder = write_photos(tmp_path / "photos", 2)
    (folder / "p1.png").write_bytes((folder / "p1.png").read_bytes()[:800])
    assert call("synth", "--images", folder, *options, "--out", tmp_path / "a") == 2
    assert "p1.png" in capsys.readouterr().err
    assert call("synth", "--images", folder, *options, "--out", tmp_path / "b", "--skip-bad") == 0
    said = capsys.readouterr()
    assert "--skip-bad leaves out 1 photographs" in said.err
    assert "1 pictures made of 1 photograph" in said.out
    assert call("synth", "--images", folder, *options, "--out", folder / "inside") == 2
    assert "where the photographs are" in capsys.readouterr().err


def test_an_engine_names_its_extra(call, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert call("synth", "--images", photos, "--engines", "ns", "--out", tmp_path / "o") == 2
    assert 'pip install "defi-net[synth]"' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "diffusers", None)
    given = ("--engines", f"diffusers:{tmp_path}", "--accelerator", "cpu")
    assert call("synth", "--images", photos, *given, "--out", tmp_path / "o") == 2
    assert 'pip install "defi-net[diffusers]"' in capsys.readouterr().err


def test_out_is_checked_before_anything_is_loaded(call, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "defi_net.synthesizing", None)
    (tmp_path / "file").touch()
    assert call("synth", "--images", photos, "--out", tmp_path / "file") == 2
    assert "--out must be a folder, this is a file" in capsys.readouterr().err


def test_a_pipeline_that_does_not_inpaint(call, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    pytest.importorskip("diffusers")
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    given = ("--engines", f"diffusers:{tmp_path}", "--size", 64)
    assert call("synth", "--images", photos, *given, "--out", tmp_path / "o") == 2
    assert "a DDPMPipeline does not inpaint" in capsys.readouterr().err
    given += ("--accelerator", "gpu")
    assert call("synth", "--images", photos, *given, "--out", tmp_path / "p") == 2
    assert "--accelerator gpu: no CUDA device is there" in capsys.readouterr().err


@pytest.mark.parametrize("numbers", [[], [1, 2, 3]])
def test_a_range_has_one_or_two_numbers(numbers):
    with pytest.raises(ValueError, match="--blur must be LEAST,GREATEST or one number"):
        pair(numbers, "--blur")


def test_help_of_every_command_needs_no_torch():
    code = """
import sys
from papercommons.cli import build_parser
from defi_net import cli
for verb in ("synth", "train", "evaluate", "predict", "compare", "export", "demo"):
    text = build_parser(getattr(cli, verb), verb).format_help()
    assert "usage" in text
    getattr(cli, "main_" + verb.replace("evaluate", "eval"))
assert not {"torch", "cv2", "gradio", "matplotlib"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
