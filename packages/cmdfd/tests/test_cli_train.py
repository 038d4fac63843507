from __future__ import annotations

import csv
import json

import pytest
import torch
from cmdfd.options import LossOptions, RecipeOptions
from cmdfd.presets import NETWORKS, resolve
from cmdfd.saved import load_network

SMALL = {"dim": 16, "visual_width": 2, "audio_layers": [1, 1, 1, 1], "tcn_layers": 1, "heads": 2}


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def train_small(run_verb, talking_set):
    """Run cmdfd-train on the small set with a tiny network."""

    def train(*arguments):
        defaults = {"--data": talking_set, "--epochs": 1, "--frames-per-batch": 60}
        more = [x for k, v in defaults.items() if k not in arguments for x in (k, v)]
        return run_verb("train", "--preset", "quick", *more, *arguments)

    patch = pytest.MonkeyPatch()
    patch.setitem(NETWORKS, "quick", SMALL)
    yield train
    patch.undo()


@pytest.fixture(scope="module")
def teacher(run_verb, talking_set, tmp_path_factory):
    """A run of cmdfd-teach; tests leave it as it is."""
    out = tmp_path_factory.mktemp("teacher") / "out"
    options = ("--data", talking_set, "--dim", 16, "--width", 4, "--frames-per-batch", 30)
    more = ("--epochs", 10, "--lr", 0.02, "--no-augment")
    assert run_verb("teach", *options, *more, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def run(train_small, teacher, tmp_path_factory):
    """A run of cmdfd-train with that teacher; tests leave it as it is."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert train_small("--teacher", teacher, "--epochs", 3, "--out", out) == 0
    return out


def test_a_taught_teacher_tells_how_good_it_is(teacher):
    result = result_of(teacher)
    right = {key.rpartition("_")[2]: v for key, v in result["metrics"].items() if "accuracy" in key}
    assert right["mouth"] > 0.45  # the most frequent class: 0.37
    assert {"voice", "mouth"} == set(right)
    assert result["metrics"]["clips"] == {"train": 8, "val": 4}
    config = json.loads((teacher / "export" / "config.json").read_text())
    assert (config["kind"], config["classes"], config["labels"][0]) == ("small", 11, "silence")
    assert "<h2>Examples</h2>" in (teacher / "report.html").read_text()


def test_a_run_leaves_all_that_is_needed(run, teacher):
    for name in ("config.yaml", "metrics.csv", "last.ckpt", "best.ckpt", "report.html"):
        assert (run / name).is_file(), name
    result = result_of(run)
    assert "the best on val; test split" in result["title"]
    assert result["metrics"]["clips"] == {"train": 16, "val": 8, "test": 8}
    assert result["metrics"]["metadata"] == {"train": 0.5, "val": 0.5}
    assert any("metadata of val" in note for note in result["notes"])
    assert not any("cut as" in note for note in result["notes"])
    assert result["rows"][0]["fake"] == result["rows"][0]["real"] == 4
    assert {row["split"] for row in rows_of(run / "items.csv")} == {"val", "test"}
    metrics = rows_of(run / "metrics.csv")
    assert all(float(row["train/distill"]) > 0 for row in metrics)
    net, config = load_network(run)
    best = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in net.state_dict().items():
        assert torch.equal(value, best[f"net.{name}"]), name
    assert (config["crop"]["size"], config["score"], config["legacy"]) == (16, "margin", False)
    assert config["teacher"] == str(teacher)
    assert config["calibration"]["fake"] == 4


def test_a_resumed_run_is_the_unbroken_one(run, train_small, teacher, tmp_path, no_pictures):
    arguments = ("--out", tmp_path / "out", "--epochs", 3, "--teacher", teacher)
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


def test_the_official_way(train_small, run, talking_set, tmp_path, no_pictures):
    out = tmp_path / "out"
    assert train_small("--legacy", "--init", run, "--out", out) == 0
    net, config = load_network(out)
    assert net.config["legacy_concat"]
    assert (config["score"], config["legacy"]) == ("fake", True)
    kept = torch.load(out / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert (kept["target"], kept["over_time"], kept["teacher_dropout"]) == ("jeffreys", "sum", True)


def test_people_in_two_parts_are_refused(train_small, talking_set, tmp_path, capsys, no_pictures):
    out = tmp_path / "out"
    assert train_small("--val", talking_set, "--test", talking_set / "list.csv", "--out", out) == 0
    lines = (talking_set / "list.csv").read_text().replace(",test,", ",,").splitlines()
    (talking_set / "all.csv").write_text("\n".join([lines[0], *(x for x in lines if "test-" in x)]))
    try:
        arguments = ("--data", talking_set / "all.csv", "--val", talking_set / "all.csv")
        assert train_small(*arguments, "--out", tmp_path / "b") == 2
        assert "--allow-leak" in capsys.readouterr().err
        more = ("--allow-leak", "--dry-run")
        assert train_small(*arguments, *more, "--out", tmp_path / "b") == 0
        assert "share people" in capsys.readouterr().out
        alone = ("--data", talking_set / "all.csv", "--val-fraction", 0.5, "--dry-run")
        assert train_small(*alone, "--seed", 1, "--out", tmp_path / "b") in (0, 2)
    finally:
        (talking_set / "all.csv").unlink()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "no"), "no: no such file or folder"),
        (("--teacher", "no"), "no saved network"),
        (("--init", "no.model"), "no.model: no such file"),
        (("--lr", 0), "--lr must be > 0"),
        (("--max-frames", 4), "--max-frames must be >= 5"),
        (("--target", "kl"), "one of js, jeffreys"),
        (("--w-dist", -1), "--w-dist must be >= 0"),
        (("--precision", "64-true"), "--precision: expected one of 32-true"),
        (("--face", "0"), "--face must be largest or a number"),
        (("--out", "{folder}/file"), "must be a folder"),
        (("--init", "{folder}/file"), "no torch file of plain weights"),
    ],
)
def test_bad_arguments_are_told_in_one_line(train_small, tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("words")
    words = [str(word).format(folder=tmp_path) for word in arguments]
    out = [] if "--out" in words else ["--out", tmp_path / "out"]
    assert train_small(*words, *out) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("cmdfd-train: error: ")
    assert message in error


def test_presets():
    paper = resolve(RecipeOptions(), LossOptions(), legacy=False, cuda=True)
    assert (paper["preset"], paper["frames_per_batch"], paper["net"]) == ("paper", 2000, {})
    official = resolve(RecipeOptions(preset="paper"), LossOptions(), legacy=True, cuda=False)
    assert (official["lr"], official["target"], official["max_frames"]) == (1e-5, "jeffreys", 1000)
    given = RecipeOptions(lr=0.5, size=64)
    mine = resolve(given, LossOptions("js"), legacy=True, cuda=False)
    assert (mine["preset"], mine["lr"], mine["size"], mine["target"]) == ("quick", 0.5, 64, "js")


def test_a_network_of_one_stream_is_a_baseline(train_small, run_verb, talking_set, run, tmp_path):
    out = tmp_path / "visual"
    assert train_small("--stream", "visual", "--out", out) == 0
    net, _ = load_network(out)
    assert net.config["stream"] == "visual"
    assert not hasattr(net, "audioEncoder")
    for checkpoint in (out, out / "last.ckpt"):
        told = tmp_path / f"said-{checkpoint.name}"
        assert run_verb("predict", talking_set, "--checkpoint", checkpoint, "--out", told) == 0
        notes = result_of(told)["notes"]
        assert any("hears nothing" in note for note in notes)


def test_one_stream_takes_no_teacher(train_small, teacher, tmp_path, capsys):
    options = ("--stream", "audio", "--teacher", teacher, "--out", tmp_path / "out")
    assert train_small(*options) == 2
    assert "--stream audio compares nothing: leave out --teacher" in capsys.readouterr().err
