from __future__ import annotations

import csv
import json

import pytest
import torch
from semforge.options import LossOptions, NetworkOptions, RecipeOptions
from semforge.presets import PRESETS, resolve
from semforge.saved import load_network
from semforge.training import meta_split

AUTO_LAMBDA = ("--weighting", "autol", "--lambda-lr", 0.01, "--cut-by", "lbp")


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out what takes most of the time of a short run."""
    for module in ("papercommons.report", "semforge.pictures"):
        monkeypatch.setattr(f"{module}.figure_png", lambda draw, **options: b"png")
    monkeypatch.setattr("semforge.pictures.image_grid_png", lambda *arguments, **options: b"png")


def test_a_run_leaves_all_that_is_needed(run):
    for name in ("config.yaml", "metrics.csv", "last.ckpt", "best.ckpt", "report.html"):
        assert (run / name).is_file(), name
    result = result_of(run)
    assert result["metrics"]["epochs"] == 3
    assert result["metrics"]["faces"]["auc"]["value"] > 0.9
    assert result["metrics"]["splits"] == {"train": 64, "val": 32, "test": 32}
    assert result["metrics"]["counts"] == {"faces": 32, "fake": 16, "real": 16, "videos": 8}
    assert "the best on val; test split" in result["title"]
    assert len(rows_of(run / "items.csv")) == 32
    page = (run / "report.html").read_text()
    for heading in ("Fake or real", "Nodes of the graph", "By method", "Weights of the levels"):
        assert f"<h2>{heading}</h2>" in page


def test_the_saved_network_is_the_best_one_and_knows_its_crop_and_calibration(run):
    net, config = load_network(run)
    best = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in net.state_dict().items():
        assert torch.equal(value, best[f"net.{name}"]), name
    assert (config["crop"]["crop"], config["crop"]["cut_by"]) == ("none", "lbp")
    assert config["crop"]["size"] == config["image_size"] == 32
    assert (config["calibration"]["fake"], config["calibration"]["real"]) == (16, 16)
    assert config["calibration"]["slope"] > 0
    assert "found by the detector lbp" in (run / "export/README.md").read_text()


def test_weights_of_the_levels_are_kept_by_epoch(run):
    rows = rows_of(run / "lambda.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert set(rows[0]) == {"epoch", "root", "global", "local"}
    for kept, logged in zip(rows, rows_of(run / "metrics.csv"), strict=True):
        assert all(kept[level] == logged[f"lambda/{level}"] for level in set(kept) - {"epoch"})
    assert float(rows[-1]["root"]) != 1


def test_a_resumed_run_is_the_unbroken_one(run, train_small, tmp_path, no_pictures):
    arguments = ("--out", tmp_path / "out", "--epochs", 3, *AUTO_LAMBDA)
    assert train_small(*arguments, "--trainer.max_epochs", 1) == 0
    assert train_small(*arguments) == 2
    assert train_small(*arguments, "--resume", "last") == 0
    seen = []
    for folder in (run, tmp_path / "out"):
        seen.append([{**row, "seconds": ""} for row in rows_of(folder / "metrics.csv")])
    assert seen[0] == seen[1]
    for name in ("model.safetensors", "config.json"):
        ours, theirs = (folder / "export" / name for folder in (run, tmp_path / "out"))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_without_val_there_is_no_best_and_no_calibration(
    train_small, drawn, tmp_path, capsys, no_pictures
):
    lines = [
        f"{drawn / row['path']} {row['label']}\n"
        for row in rows_of(drawn / "list.csv")
        if row["split"] == "test"
    ]
    (tmp_path / "all.txt").write_text("".join(lines))
    out = tmp_path / "out"
    options = ("--data", tmp_path / "all.txt", "--root", "/", "--val-fraction", 0)
    more = ("--head", "flat", "--loss", "fidelity", "--schedule", "cosine", "--optimizer", "adamw")
    assert train_small(*options, *more, "--out", out) == 0
    assert "THERE IS NO VAL SPLIT" in capsys.readouterr().out
    assert not (out / "best.ckpt").exists()
    assert not (out / "items.csv").exists()
    _, config = load_network(out)
    assert config["calibration"] is None
    assert config["head"] == "flat"
    assert config["crop"]["cut_by"] is None


def test_a_set_of_synth_says_how_its_faces_were_cut(train_small, drawn, tmp_path, no_pictures):
    for path in drawn.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    facts = {"crop": {"crop": "detect", "detector": "lbp"}}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    options = ("--head", "binary", "--graph", "ffsc", "--strict-root", "--self-blend", 0.3)
    assert train_small("--data", tmp_path, "--out", tmp_path / "out", *options) == 0
    net, config = load_network(tmp_path / "out")
    assert config["crop"]["cut_by"] == "lbp"
    assert net.nodes == ("fake",)
    assert len(net.graph.states) == 1543


def test_a_dry_run_writes_nothing(train_small, tmp_path, capsys):
    assert train_small("--out", tmp_path / "out", "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    assert "test split" in capsys.readouterr().out


def test_presets():
    assert set(PRESETS["quick"]) == set(PRESETS["paper"])
    paper = resolve(NetworkOptions(), RecipeOptions(), cuda=True)
    assert (paper["backbone"], paper["epochs"], paper["lr"]) == ("legacy_xception", 36, 1e-4)
    given = resolve(NetworkOptions(backbone="resnet18"), RecipeOptions(preset="paper"), cuda=False)
    assert (given["preset"], given["backbone"]) == ("paper", "resnet18")


def test_weights_are_judged_on_held_out_faces_where_there_are_any():
    auto = LossOptions(weighting="autol")
    assert meta_split(LossOptions(), RecipeOptions(), None) is None
    assert meta_split(auto, RecipeOptions(), None) == "val"
    assert meta_split(auto, RecipeOptions(val_fraction=0), None) == "train"
    assert meta_split(auto, RecipeOptions(val_fraction=0), "val.txt") == "val"
    chosen = LossOptions(weighting="autol", meta_split="train")
    assert meta_split(chosen, RecipeOptions(), "val.txt") == "train"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "no.txt"), "no.txt: no such file or folder"),
        (("--val", "no.txt"), "no.txt: no such file or folder"),
        (("--graph", "no.yaml"), "no.yaml: no such file"),
        (("--graph", "{drawn}/list.csv", "--strict-root"), "--strict-root is for ffsc and ffpp"),
        (("--crop", "boxes"), "--boxes goes with --crop boxes"),
        (("--boxes", "{drawn}/list.csv"), "--boxes goes with --crop boxes"),
        (("--crop", "detect", "--cut-by", "lbp"), "--cut-by goes with --crop none"),
        (("--weighting", "autol", "--head", "binary"), "weighs the losses of several levels"),
        (("--weighting", "autol", "--loss", "nll"), "weighs the losses of several levels"),
        (("--weighting", "autol", "--compile"), "--compile does not go with"),
        (("--meta-split", "val"), "--meta-split goes with --weighting autol"),
        (("--lambda-every", 0), "--lambda-every must be >= 1"),
        (("--lr", 0), "--lr must be > 0"),
        (("--epochs", 0), "--epochs must be >= 1"),
        (("--aug-prob", 2), "--aug-prob must be in [0, 1]"),
        (("--val-fraction", 1), "--val-fraction must be in [0, 1)"),
        (("--size", 16), "--size must be in [32, 1024]"),
        (("--dropout", 1), "--dropout must be in [0, 1)"),
        (("--lr-decay", 0), "--lr-decay must be in (0, 1]"),
        (("--weight-decay", -1), "--weight-decay must be >= 0"),
        (("--n-frames", 0), "--n-frames must be >= 1"),
        (("--root", "no"), "no: no such folder; --root"),
        (("--pretrained", "no.pt"), "no.pt: no such file; --pretrained"),
        (("--precision", "64-true"), "expected one of 32-true, bf16-mixed, 16-mixed"),
        (("--graph", "ffpp"), "ffpp has 10 nodes"),
    ],
)
def test_bad_options_are_told_in_one_line(
    train_small, drawn, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    words = [str(word).replace("{drawn}", str(drawn)) for word in arguments]
    assert train_small(*words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("semforge-train: error: ")
    assert message in error
    assert not (tmp_path / "out").exists()
