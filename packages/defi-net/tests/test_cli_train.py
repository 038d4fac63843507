from __future__ import annotations

import csv
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from defi_net.calibration import FIXED, ImageThreshold, choose_threshold, remembered
from defi_net.evaluation import read_rows
from defi_net.layouts import Sample
from defi_net.model import DeFINet
from defi_net.options import NetworkOptions, RecipeOptions
from defi_net.presets import PRESETS, resolve
from defi_net.reading import read_sample
from papercommons.errors import DataError
from PIL import Image


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_a_run_leaves_all_that_is_needed(run, forged):
    for name in ("config.yaml", "metrics.csv", "last.ckpt", "best.ckpt", "report.html"):
        assert (run / name).is_file(), name
    result = result_of(run)
    assert result["metrics"]["photographs"] == {"train": 20, "val": 8, "test": 12}
    assert result["metrics"]["epochs"] == 2
    assert "best on val" in result["title"]
    rows = read_rows(run / "items.csv")
    assert len(rows) == 12
    assert {"imdl_f1", "official_f1", "trufor_f1_best", "auc"} <= set(rows[0])
    table = {row["method"]: row for row in result["rows"]}
    assert table["all"]["photographs"] == 12
    forged_rows = [row["imdl_f1"] for row in rows if row["label"]]
    assert table["patch"]["F1 (imdl)"] == pytest.approx(np.mean(forged_rows))
    assert table["authentic"]["F1 (imdl)"] is None
    model = DeFINet.from_pretrained(run)
    assert model.config["width"] == 4
    best = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, best[f"model.{name}"]), name
    page = (run / "report.html").read_text()
    for heading in ("By method", "Photographs as a whole", "Example: the best", "Training"):
        assert f"<h2>{heading}</h2>" in page


def test_the_network_remembers_a_threshold_for_photographs(run, forged):
    config = json.loads((run / "export/config.json").read_text())
    assert (config["size"], config["fit"]) == (32, "crop")
    image = remembered(config)
    assert image.rate == 0.05
    samples = [s for s in _val(forged) if s.mask is None]
    assert image.photographs == len(samples) > 0
    assert image == ImageThreshold(**result_of(run)["metrics"]["image_threshold"])


def _val(forged):
    from defi_net.layouts import find_samples

    return [sample for sample in find_samples(forged) if sample.split == "val"]


def test_a_threshold_lets_that_share_of_authentic_pass(forged):
    def predict(photo):
        return photo[..., 0] / 255

    samples = _val(forged)
    authentic = [s for s in samples if s.mask is None]
    found = choose_threshold(predict, samples, read=read_sample, rate=0.0)
    assert found.photographs == len(authentic)
    highest = max(read_sample(s)[0][..., 0].max() for s in authentic) / 255
    assert found.value >= highest
    looser = choose_threshold(predict, samples, read=read_sample, rate=0.5)
    assert looser.value < found.value
    assert choose_threshold(predict, [s for s in samples if s.mask], read=read_sample) is None
    assert remembered({}) is FIXED
    with pytest.raises(DataError, match="image_threshold is not as defi-net writes it"):
        remembered({"image_threshold": {"score": "best", "value": 0.5}})
    with pytest.raises(DataError, match="image_threshold is not as defi-net writes it"):
        remembered({"image_threshold": [1]})


def test_a_resumed_run_is_the_unbroken_one(run, train_small, tmp_path, monkeypatch):
    monkeypatch.setattr("defi_net.training.judge_and_write", lambda *arguments: None)
    arguments = ("--out", tmp_path / "out", "--epochs", 2, "--schedule", "constant")
    assert train_small(*arguments, "--trainer.max_epochs", 1) == 0
    assert train_small(*arguments) == 2
    assert train_small(*arguments, "--resume", "last") == 0
    rows = []
    for path in (run / "metrics.csv", tmp_path / "out/metrics.csv"):
        with path.open(newline="") as file:
            rows.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    for name in ("model.safetensors", "config.json"):
        ours, theirs = (folder / "export" / name for folder in (run, tmp_path / "out"))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_without_val_there_is_no_best(train_small, forged, tmp_path, capsys):
    pictures = tmp_path / "set"
    (pictures / "images").mkdir(parents=True)
    (pictures / "labels").mkdir()
    for sample in [s for s in _val(forged) if s.mask]:
        shutil.copy(sample.image, pictures / "images")
        shutil.copy(sample.mask, pictures / "labels")
    out = tmp_path / "out"
    options = ("--val-fraction", 0, "--augment", "paper", "--fit", "resize", "--batch-size", 2)
    more = ("--neck", "fpn", "--head", "sum", "--stem", "srm", "--schedule", "plateau")
    assert train_small("--data", pictures, "--out", out, *options, *more) == 0
    assert "THERE IS NO VAL SPLIT" in capsys.readouterr().out
    assert not (out / "best.ckpt").exists()
    assert not (out / "items.csv").exists()
    config = json.loads((out / "export/config.json").read_text())
    assert config["image_threshold"] is None
    assert config["fit"] == "resize"
    assert (config["model"]["neck"], config["model"]["head"]) == ("fpn", "sum")


def test_shared_photographs_are_told(train_small, forged, tmp_path, capsys, caplog):
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        assert train_small("--test", forged / "manifest.csv", "--val", forged, "--dry-run") == 0
    assert "test: " not in caplog.text
    rows = (forged / "manifest.csv").read_text().replace(",test,", ",train,").splitlines()
    shutil.copytree(forged, tmp_path / "set")
    (tmp_path / "set/manifest.csv").write_text("\n".join(rows) + "\n")
    given = ("--data", tmp_path / "set", "--test", forged, "--dry-run", "--out", tmp_path / "o")
    assert train_small(*given) == 0
    assert "train and test SHARE SOURCES (3)" in capsys.readouterr().out
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", 100), "--size must be a multiple of 8 and >= 16, got 100; the nearest is 96"),
        (("--backbone", "hrnet_tinny"), "no backbone hrnet_tinny; did you mean hrnet_tiny"),
        (("--precision", "64-true"), "expected one of 32-true, bf16-mixed, 16-mixed"),
        (("--lr", 0), "--lr must be > 0"),
        (("--false-alarm-rate", 1), "--false-alarm-rate must be in [0, 1)"),
        (("--mask-weight", 0, "--edge-weight", 0), "weights must be >= 0, one above"),
        (("--val-fraction", 1), "--val-fraction must be in [0, 1)"),
        (("--accelerator", "cuda"), "cannot run as asked"),
        (("--layout", "pears"), "no layout 'pears'; did you mean pairs"),
        (("--data", "nowhere"), "nowhere: no such file or folder; expected a data set"),
        (("--resume", "last"), "nothing to resume"),
        (("--trainer.max_epoch", 1), "no such option; did you mean max_epochs"),
    ],
)
def test_wrong_options_are_one_line(train_small, tmp_path, options, message, capsys):
    if options[0] == "--accelerator" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert train_small("--out", tmp_path / "out", *options) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("defi-net-train: error: ")
    assert message in line
    assert not (tmp_path / "out" / "last.ckpt").exists()


def write_pairs(root, count=4, size=(40, 48)):
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    mask = np.zeros(size, dtype=np.uint8)
    mask[5:20, 5:20] = 255
    for number in range(count):
        photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(photo).save(root / f"images/{number}.png")
        Image.fromarray(mask).save(root / f"labels/{number}.png")
    return root


def grey(root):
    Image.fromarray(np.full((40, 48), 128, np.uint8)).save(root / "labels/1.png")


def other_size(root):
    Image.fromarray(np.zeros((20, 48), np.uint8)).save(root / "labels/1.png")


def small(root):
    Image.fromarray(np.zeros((12, 48, 3), np.uint8)).save(root / "images/1.png")
    Image.fromarray(np.zeros((12, 48), np.uint8)).save(root / "labels/1.png")


def truncated(root):
    path = root / "images/1.png"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (grey, "labels/1.png: 100% of the mask is grey"),
        (other_size, "labels/1.png: is 48x20, but 1.png is 48x40"),
        (small, "images/1.png: is 48x12; both sides must be >= 16"),
        (truncated, "images/1.png"),
        (lambda root: (root / "labels/1.png").write_bytes(b"no image"), "labels/1.png"),
    ],
)
def test_bad_files_are_named_or_left_out(train_small, tmp_path, spoil, message, capsys):
    root = write_pairs(tmp_path / "set")
    spoil(root)
    given = ("--data", root, "--val-fraction", 0, "--dry-run", "--batch-size", 4)
    assert train_small(*given) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("defi-net-train: error: ")
    assert message in line
    assert train_small(*given, "--skip-bad", "--json") == 0
    said = capsys.readouterr()
    assert "--skip-bad leaves out 1 of 4 images" in said.err
    assert json.loads(said.out)["metrics"]["left_out"] == 1


def test_unmatched_files_are_listed(train_small, tmp_path, capsys):
    root = write_pairs(tmp_path / "set", 9)
    for number in range(7):
        (root / f"labels/{number}.png").rename(root / f"labels/x{number}.png")
    assert train_small("--data", root, "--out", tmp_path / "o") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "7 images without a mask (0, 1, 2, 3, 4, ...)" in line
    assert "7 masks without an image (x0, x1, x2, x3, x4, ...)" in line


def test_a_loss_that_is_not_finite_ends_the_run(train_small, tmp_path, capsys):
    arguments = ("--out", tmp_path / "out", "--lr", "1e30", "--schedule", "constant")
    assert train_small(*arguments) == 1
    assert "training diverged" in capsys.readouterr().err


def test_presets_hold_for_what_is_not_given():
    nothing = resolve(NetworkOptions(), RecipeOptions(), cuda=False)
    assert nothing == {"preset": "quick", **PRESETS["quick"]}
    paper = resolve(NetworkOptions(), RecipeOptions(), cuda=True)
    assert (paper["size"], paper["batch_size"], paper["lr"]) == (352, 16, 2e-4)
    assert (paper["epochs"], paper["augment"], paper["width"]) == (100, "paper", 64)
    assert paper["backbone"] == "hrnet_w18_small_v2"
    given = resolve(NetworkOptions(width=9), RecipeOptions(preset="paper", lr=1.0), cuda=False)
    assert given == {**paper, "width": 9, "lr": 1.0}


def test_samples_of_one_kind_choose_by_loss(tmp_path):
    from types import SimpleNamespace

    from defi_net.training import choose_monitor

    photo = tmp_path / "x.png"
    kinds = {(): (None, "min"), (None,): ("val/loss", "min"), (photo,): ("val/auc", "max")}
    for masks, wanted in kinds.items():
        samples = [Sample(photo, mask) for mask in masks]
        data = SimpleNamespace(has_val=bool(samples), splits={"val": samples})
        assert choose_monitor(data) == wanted
