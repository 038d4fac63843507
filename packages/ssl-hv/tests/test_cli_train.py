from __future__ import annotations

import csv
import json
import re
import tarfile

import pytest
import torch
import yaml
from papercommons.metrics.roc import binary_auc
from papercommons.metrics.verification import accuracy_threshold, fit_calibration
from safetensors.torch import load_file
from ssl_hv.data import WordData
from ssl_hv.lightning import VICRegModule
from ssl_hv.supervised import VerifierModule, WriterModule
from ssl_hv.verifier import SiameseVerifier


def result_of(folder):
    """Strictly read: NaN and Infinity are no JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} in result.json")

    return json.loads((folder / "result.json").read_text(), parse_constant=refuse)


def scores_of(folder):
    rows = list(csv.DictReader((folder / "items.csv").read_text().splitlines()))
    return rows, [float(row["score"]) for row in rows], [int(row["label"]) for row in rows]


def test_training_leaves_everything_a_run_needs(run):
    made = {path.name for path in run.iterdir()}
    assert made >= {
        *("config.yaml", "metrics.csv", "last.ckpt", "best.ckpt", "export"),
        *("result.json", "report.html", "items.csv"),
    }
    result = result_of(run)
    assert result["package"] == "ssl-hv"
    assert result["versions"]["ssl-hv"]
    assert (result["seed"], result["device"]) == (0, "cpu") or result["seed"] == 0
    assert "no proof of authorship" in result["limits"]
    assert result["metrics"]["writers"] == {"unlabelled": 11, "train": 9, "val": 2, "test": 3}
    assert (result["metrics"]["epochs"], result["metrics"]["left_out"]) == (2, 0)
    weights = load_file(run / "export" / "model.safetensors")
    assert 0 < result["metrics"]["parameters"] <= sum(w.numel() for w in weights.values())
    assert result["files"].keys() >= {"last", "best", "export", "items"}
    assert yaml.safe_load((run / "config.yaml").read_text())["preset"] == "quick"


def test_the_numbers_are_those_of_the_scores(run):
    rows, scores, same = scores_of(run)
    metrics = result_of(run)["metrics"]
    assert len(rows) == metrics["pairs"] == 2 * metrics["same_writer_pairs"]
    assert metrics["auc"] == pytest.approx(binary_auc(scores, same), abs=1e-4)
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert metrics["accuracy"] == pytest.approx(right / len(rows))
    low, high = metrics["intervals"]["auc"]
    assert low <= metrics["auc"] <= high
    for row in rows:
        one_writer = row["sample1"].split("/")[0] == row["sample2"].split("/")[0]
        assert one_writer == (row["label"] == "1")


def test_reports_need_nothing_from_elsewhere(run, pretrained):
    for folder in (run, pretrained):
        page = (folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") >= 3
        links = re.findall(r'(?:src|href)\s*=\s*["\']?([^"\'\s>]+)', page)
        assert all(link.startswith(("data:", "#")) for link in links), links
        assert "<script" not in page
        assert "url(" not in page.replace("url(data:", "")
    assert "Tippett" in (run / "report.html").read_text()


def test_what_is_exported_is_the_best_on_held_out_writers(run):
    exported = load_file(run / "export" / "model.safetensors")
    best = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    for name in ("head.mlp.0.weight", "encoder.features.0.weight"):
        assert torch.equal(exported[name], best[f"verifier.{name}"])
    verifier = SiameseVerifier.from_pretrained(run)
    assert verifier.is_calibrated
    assert verifier.slope >= 0
    assert result_of(run)["metrics"]["threshold"] == pytest.approx(verifier.threshold.item())
    config = json.loads((run / "export" / "config.json").read_text())
    assert "ssl-hv-pretrain --method vicreg" in config["made_by"]
    assert [len(config["val_ln_lr"][kind]) for kind in ("same", "different")] == [101, 101]


def test_threshold_and_calibration_come_from_held_out_training_writers(run, words):
    data, verifier = WordData(str(words)), SiameseVerifier.from_pretrained(run)
    pairs = data.pairs["val"]
    with torch.no_grad():
        scores = verifier(data.images[pairs.left], data.images[pairs.right]).double().numpy()
    calibration = fit_calibration(scores, pairs.same)
    assert verifier.slope.item() == pytest.approx(calibration.slope, rel=1e-3)
    assert verifier.intercept.item() == pytest.approx(calibration.intercept, rel=1e-3)
    expected = accuracy_threshold(scores, pairs.same)
    assert verifier.threshold.item() == pytest.approx(expected, abs=1e-4)


def test_training_begins_with_the_pre_trained_weights(pretrained, train_small, monkeypatch):
    begun = {}

    def stop(self):
        begun.update(self.verifier.encoder.state_dict())
        raise KeyboardInterrupt

    monkeypatch.setattr(VerifierModule, "on_train_epoch_start", stop)
    assert train_small("--encoder", pretrained, "--objective", "pairs", "--dry-run") == 1
    for name, value in load_file(pretrained / "export" / "model.safetensors").items():
        assert torch.equal(begun[name], value), name


def test_a_frozen_encoder_is_exported_as_it_came(pretrained, train_small, tmp_path):
    out = tmp_path / "run"
    arguments = ("--encoder", pretrained, "--freeze", "--epochs", 1, "--head-input", "product")
    assert train_small(*arguments, "--writer-fraction", 0.6, "--out", out) == 0
    exported = load_file(out / "export" / "model.safetensors")
    for name, value in load_file(pretrained / "export" / "model.safetensors").items():
        assert torch.equal(exported[f"encoder.{name}"], value), name
    counts = result_of(out)["metrics"]["writers"]
    assert (counts["train"] + counts["val"], counts["unlabelled"], counts["test"]) == (6, 11, 3)


@pytest.mark.parametrize(
    ("encoder", "objective", "head"),
    [
        ("hog", "auto", "logistic"),
        ("gsc-bits", "whitened", "cosine"),
        ("raw", "cosine", "cosine"),
        ("gsc", "pairs", "pair"),
        ("resnet-layout", "writers", "cosine"),
    ],
)
def test_baselines_and_other_objectives(encoder, objective, head, train_small, tmp_path):
    out = tmp_path / "run"
    more = ("--freeze",) if encoder == "gsc" else ()
    more += ("--width", 4) if encoder == "resnet-layout" else ()
    arguments = ("--encoder", encoder, "--objective", objective, "--epochs", 1, *more)
    assert train_small(*arguments, "--out", out) == 0
    verifier = SiameseVerifier.from_pretrained(out)
    assert verifier.head_name == head
    assert verifier.is_calibrated
    assert (out / "last.ckpt").exists() == (objective in ("pairs", "writers"))
    # what was fitted sees words as they are: a faint one that is changed may lose all ink
    expected = "none" if encoder in ("hog", "gsc", "gsc-bits", "raw") else "handwriting"
    assert yaml.safe_load((out / "config.yaml").read_text())["augment"] == expected


def test_thresholds_of_bits_are_fitted_before_a_head_is_trained(train_small, monkeypatch):
    seen = []

    def stop(self):
        seen.append(self.verifier.encoder.thresholds.clone())
        raise KeyboardInterrupt

    from ssl_hv.encoders import create_encoder

    monkeypatch.setattr(VerifierModule, "on_train_epoch_start", stop)
    arguments = ("--encoder", "gsc-bits", "--objective", "pairs", "--freeze", "--dry-run")
    assert train_small(*arguments) == 1
    assert not torch.equal(seen[0], create_encoder("gsc-bits").thresholds)


@pytest.mark.parametrize("module", [VerifierModule, WriterModule])
def test_a_resumed_run_ends_where_the_unbroken_one_does(module, train_small, tmp_path, monkeypatch):
    objective = "pairs" if module is VerifierModule else "writers"
    arguments = ("--objective", objective, "--width", 4, "--epochs", 3)
    assert train_small(*arguments, "--out", tmp_path / "whole") == 0
    ends = module.on_train_epoch_end

    def stop(self):
        ends(self)
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "on_train_epoch_end", stop)
    assert train_small(*arguments, "--out", tmp_path / "broken") == 1
    monkeypatch.undo()
    resumed = (*arguments, "--out", tmp_path / "broken", "--resume", "last")
    assert train_small(*resumed, "--lr", 1) == 2  # other settings are another run
    assert train_small(*resumed) == 0
    weights = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "broken")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=0, equal_nan=True)
    assert scores_of(tmp_path / "whole")[1] == scores_of(tmp_path / "broken")[1]
    history = (tmp_path / "broken" / "metrics.csv").read_text().splitlines()
    assert len(history) == 4


def test_a_run_is_not_overwritten_unasked(train_small, call, run, words, pretrained, capsys):
    before = sorted(run.rglob("*"))
    assert train_small("--encoder", pretrained, "--out", run) == 2
    assert "folder is not empty; pass --resume last, --overwrite" in capsys.readouterr().err
    assert train_small("--encoder", run, "--out", run, "--overwrite") == 2
    assert "--overwrite would delete" in capsys.readouterr().err
    assert call("pretrain", "--data", words, "--out", words, "--overwrite") == 2
    assert "--overwrite would delete" in capsys.readouterr().err
    assert train_small("--out", words.parent / "no run", "--resume", "last") == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


def test_a_run_is_overwritten_when_asked(train_small, tmp_path):
    out = tmp_path / "run"
    assert train_small("--encoder", "gsc", "--objective", "cosine", "--out", out) == 0
    (out / "old.txt").write_text("x")
    arguments = ("--encoder", "gsc", "--objective", "whitened", "--out", out, "--overwrite")
    assert train_small(*arguments) == 0
    assert not (out / "old.txt").exists()
    assert result_of(out)["settings"]["objective"] == "whitened"


def test_a_dry_run_writes_nothing(train_small, call, words, tmp_path):
    small = ("--width", 4, "--dry-run", "--out", tmp_path / "run")
    assert train_small("--encoder", "resnet-layout", *small) == 0
    assert call("pretrain", "--data", words, "--batch-size", 16, *small) == 0
    assert not list(tmp_path.iterdir())


def test_a_pack_with_a_flipped_byte_is_named_and_not_trained_on(
    write_pack, call, train_small, tmp_path, capsys
):
    root = write_pack(tmp_path / "pack")
    with tarfile.open(root / "images.tar") as archive:
        place = archive.getmember("0002a_num1.png").offset_data + 60
    content = bytearray((root / "images.tar").read_bytes())
    content[place] ^= 1
    (root / "images.tar").write_bytes(content)
    small = ("--width", 4, "--epochs", 1, "--out", tmp_path / "run")
    for command in (
        lambda *more: call("pretrain", "--data", root, "--batch-size", 8, *small, *more),
        lambda *more: train_small("--encoder", "resnet-layout", "--data", root, *small, *more),
    ):
        assert command() == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert "images.tar: 0002a_num1.png differs from its sha256" in line
        assert not (tmp_path / "run").exists()
        assert command("--skip-bad", "--dry-run") == 0
        assert "left out: 0002a_num1.png" in capsys.readouterr().out


def test_three_equal_channels(call, words, tmp_path):
    out = tmp_path / "run"
    arguments = ("--data", words, "--channels", 3, "--width", 4, "--epochs", 1, "--batch-size", 16)
    assert call("pretrain", *arguments, "--resize", 32, "--augment", "paper", "--out", out) == 0
    small = ("--encoder", out, "--resize", 32, "--epochs", 1, "--batch-size", 32)
    assert call("train", "--data", words, *small, "--out", tmp_path / "t") == 0
    verifier = SiameseVerifier.from_pretrained(tmp_path / "t")
    assert (verifier.channels, verifier.image_size) == (3, 32)


def test_an_encoder_for_another_size_is_refused(train_small, pretrained, tmp_path, capsys):
    arguments = ("--encoder", pretrained, "--resize", 32, "--out", tmp_path / "run")
    assert train_small(*arguments) == 2
    said = capsys.readouterr().err
    assert "images are 32 x 32, the network takes 64 x 64; pass --resize 64" in said
    assert not (tmp_path / "run").exists()


def test_a_pre_training_that_diverges_is_told(call, words, tmp_path, capsys, monkeypatch):
    step = VICRegModule.training_step
    monkeypatch.setattr(VICRegModule, "training_step", lambda *a: step(*a) * torch.nan)
    arguments = ("--data", words, "--width", 4, "--batch-size", 16, "--lr", 1e30, "--epochs", 2)
    assert call("pretrain", *arguments, "--out", tmp_path / "run") == 1
    assert "training diverged" in capsys.readouterr().err


def test_writers_in_both_parts_are_said_loudly(call, write_pack, tmp_path, capsys):
    root = write_pack(tmp_path / "pack", samples=4)
    arguments = ("--data", root, "--encoder", "raw", "--objective", "cosine", "--split-by", "seen")
    assert call("train", *arguments, "--out", tmp_path / "run") == 0
    assert "8 TEST WRITERS ARE IN THE TRAINING SPLIT TOO" in capsys.readouterr().out
