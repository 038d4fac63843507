import csv
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file


def test_training_leaves_everything_a_run_needs(run):
    made = {path.name for path in run.iterdir()}
    assert made >= {
        *("config.yaml", "metrics.csv", "splits.csv", "last.ckpt", "best.ckpt", "export"),
        *("result.json", "report.html", "items.csv", "confusion.csv", "cache"),
    }
    result = json.loads((run / "result.json").read_text())
    assert result["versions"]["nlran"]
    assert result["seed"] == 0
    assert result["metrics"]["scans"] == {"train": 12, "val": 3, "test": 3}
    assert "not a medical device" in result["limits"]
    assert "not a medical device" in (run / "report.html").read_text()
    with (run / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    patients = {}
    for row in rows:
        patients.setdefault(row["patient"], set()).add(row["split"])
    assert len(rows) == 18
    assert all(len(splits) == 1 for splits in patients.values())


def test_a_run_is_not_overwritten_unasked(train_small, run, phantoms, capsys):
    assert train_small("--data", phantoms / "ct", "--out", run) == 2
    assert "folder is not empty; pass --resume last, --overwrite" in capsys.readouterr().err


def test_a_resumed_run_ends_where_the_unbroken_one_does(
    train_small, phantoms, tmp_path, monkeypatch
):
    arguments = ("--data", phantoms / "ct", "--split-by", "none", "--epochs", 3)
    assert train_small(*arguments, "--out", tmp_path / "whole") == 0
    from nlran.lightning import NLRANModule

    ends = NLRANModule.on_train_epoch_end

    def stop(self):
        ends(self)
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(NLRANModule, "on_train_epoch_end", stop)
    assert train_small(*arguments, "--out", tmp_path / "broken") == 1
    monkeypatch.undo()
    assert train_small(*arguments, "--out", tmp_path / "broken", "--resume", "last") == 0
    weights = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "broken")
    ]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_without_held_out_scans_the_report_says_so_loudly(train_small, phantoms, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ("--data", phantoms / "ct", "--out", out, "--epochs", 1)
    assert train_small(*arguments, "--split-by", "none") == 0
    said = capsys.readouterr()
    assert "NO SCANS WERE HELD OUT" in said.err
    assert "NO SCANS WERE HELD OUT" in said.out
    assert "NO SCANS WERE HELD OUT" in (out / "report.html").read_text()
    assert not (out / "best.ckpt").exists()


def test_a_dry_run_writes_nothing(train_small, phantoms, tmp_path):
    out = tmp_path / "run"
    assert train_small("--data", phantoms / "ct", "--out", out, "--dry-run") == 0
    assert not out.exists()


@pytest.mark.parametrize("model", ["ran3d", "cbam3d", "covnet"])
def test_comparison_networks_train_by_name(call, phantoms, tmp_path, model):
    size = "0,16,16" if model == "covnet" else "16,16,16"
    arguments = ("--data", phantoms / "ct", "--split-by", "none", "--limit", 3, "--size", size)
    run = ("--epochs", 1, "--batch-size", 3, "--accelerator", "cpu", "--out", tmp_path / "run")
    assert call("train", *arguments, *run, "--network", model) == 0
    scan = next((phantoms / "ct" / "CP").iterdir())
    found = ("--checkpoint", tmp_path / "run", "--out", tmp_path / "p", "--accelerator", "cpu")
    assert call("predict", scan, *found) == 0


def test_best_is_chosen_on_val_and_is_what_is_exported(
    train_small, phantoms, tmp_path, monkeypatch
):
    """The second epoch is forced to be the best; the last one's weights are others."""
    from nlran.lightning import NLRANModule

    out = tmp_path / "run"
    log = NLRANModule.log_dict

    def judged(self, numbers, **options):
        best = 1.0 if self.current_epoch == 1 else 0.1
        log(self, {k: best if k == "val/auc" else v for k, v in numbers.items()}, **options)

    monkeypatch.setattr(NLRANModule, "log_dict", judged)
    arguments = ("--data", phantoms / "ct", "--out", out, "--epochs", 9, "--patience", 2)
    assert train_small(*arguments, "--val-fraction", 0.2, "--test-fraction", 0.2) == 0
    history = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert len(history) == 4  # the best was the second, and patience is two
    best, last = (
        torch.load(out / name, weights_only=True)["state_dict"]
        for name in ("best.ckpt", "last.ckpt")
    )
    exported = load_file(out / "export" / "model.safetensors")
    assert torch.equal(exported["head.weight"], best["network.head.weight"])
    assert not torch.equal(exported["head.weight"], last["network.head.weight"])


def test_balanced_weights_are_higher_for_rarer_classes(train_small, phantoms, tmp_path):
    data = tmp_path / "data"
    for name, count in (("NCP", 4), ("CP", 2), ("Normal", 2)):
        (data / name).mkdir(parents=True)
        for path in sorted((phantoms / "ct" / name).iterdir())[:count]:
            (data / name / path.name).write_bytes(path.read_bytes())
    arguments = ("--data", data, "--split-by", "none", "--epochs", 1, "--class-weights", "balanced")
    assert train_small(*arguments, "--out", tmp_path / "run") == 0
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["hyper_parameters"]["class_weights"] == pytest.approx([2 / 3, 4 / 3, 4 / 3])


def test_a_run_is_not_resumed_with_other_scans(train_small, phantoms, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(phantoms / "ct", data)
    arguments = ("--data", data, "--out", tmp_path / "run", "--epochs", 1)
    assert train_small(*arguments, "--val-fraction", 0.2, "--test-fraction", 0.2) == 0
    (data / "CP" / "new.nii.gz").write_bytes(b"")
    more = next((phantoms / "ct" / "Normal").iterdir()).read_bytes()
    (data / "CP" / "new.nii.gz").write_bytes(more[:-1])
    next((data / "NCP").iterdir()).unlink()
    assert (
        train_small(*arguments, "--val-fraction", 0.2, "--test-fraction", 0.2, "--resume", "last")
        == 2
    )
    assert "splits.csv" in capsys.readouterr().err


def test_a_batch_of_one_on_one_voxel_is_told_before_training(call, phantoms, tmp_path, capsys):
    arguments = ("--data", phantoms / "ct", "--split-by", "none", "--size", "16,16,16")
    assert call("train", *arguments, "--batch-size", 17, "--out", tmp_path / "r") == 2
    assert "pass --norm group" in capsys.readouterr().err


def test_the_model_card_says_what_it_was_trained_on(run):
    card = " ".join((run / "export" / "README.md").read_text().split())
    assert "trained on 4 NCP, 4 CP, 4 Normal, split by patient, 3 test scans" in card


def test_the_run_is_told_by_its_config(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["size"] == [32, 32, 32]
    assert config["preset"] == "quick"
    assert config["variant"] == "tiny"
