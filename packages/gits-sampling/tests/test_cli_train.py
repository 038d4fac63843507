from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gits_sampling import cli
from gits_sampling.callbacks import TrajectoryStatsCallback
from gits_sampling.lightning import GITSModule
from gits_sampling.loading import load_denoiser
from gits_sampling.presets import PRESETS, epochs_for
from gits_sampling.saved import load_network
from gits_sampling.schedule import Schedule
from papercommons.cli import run_command
from papercommons.data.images import read_image

SEARCH = ("--warmup", 6, "--held-out", 6, "--teacher-points", 9)
TINY = ("--width", 8, "--batch-size", 20, "--accelerator", "cpu")


def call(verb, *words):
    return run_command(getattr(cli, verb), prog=verb, argv=[str(word) for word in words])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (60, 8, 8)).astype("uint8")
    split = np.array(["train"] * 36 + ["test"] * 24)
    np.savez(path, images=pixels, labels=np.arange(60) % 3, split=split)
    return path


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "run"
    words = ("--data", images, "--epochs", 2, "--nfe", "3,4", *SEARCH, *TINY)
    assert call("train", *words, "--out", out) == 0
    return out


def test_a_run_leaves_what_is_needed(trained):
    made = {path.name for path in trained.iterdir()}
    assert made >= {
        *("config.yaml", "metrics.csv", "last.ckpt", "best.ckpt", "export", "schedules"),
        *("samples.png", "history.png", "errors.png", "result.json", "report.html"),
    }
    assert {path.name for path in (trained / "schedules").iterdir()} == {
        *("ipndm-nfe3.json", "ipndm-nfe4.json"),
    }
    result = json.loads((trained / "result.json").read_text())
    metrics = result["metrics"]
    assert metrics["epochs"] == 2
    assert metrics["left_out"] == 0
    assert metrics["images"] == {"test": 24, "train": 33, "val": 3}
    assert metrics["frechet_images"] == 24
    assert metrics["frechet_samples"] > 0
    assert [row["nfe"] for row in result["rows"]] == [3, 4]
    assert (trained / "report.html").read_text().count("data:image/png;base64,") == 5
    card = (trained / "export" / "README.md").read_text()
    assert "gits-sampling-train, seed 0, epoch " in card
    assert "Classes: 0, 1, 2." in card
    assert read_image(trained / "samples.png").size[0] >= 600


def test_what_is_exported_is_the_best_epoch_with_its_schedule(trained):
    module = load_network(trained / "export")
    best = torch.load(trained / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in module.average.state_dict().items():
        assert torch.equal(value, best[f"average.{name}"]), name
    schedule = Schedule.load(trained / "schedules" / "ipndm-nfe4.json")
    assert torch.equal(module.schedule.sigmas, schedule.sigmas)
    loaded = load_denoiser(trained)  # the run's folder stands for its export
    assert loaded.fingerprint() == schedule.fingerprint


def test_sampling_from_a_run_takes_its_schedule(trained, tmp_path, capsys):
    words = ("--model", trained, "--seeds", "0-3", "--save", "npz")
    assert call("sample", *words, "--out", tmp_path / "a") == 0
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["metrics"]["network_calls_each"] == 4
    found = np.load(tmp_path / "a" / "samples.npz")["samples"]
    module = load_network(trained / "export")
    expected = module.sample([0, 1, 2, 3], labels=torch.tensor([0, 1, 2, 0]))
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4)
    path = trained / "schedules" / "ipndm-nfe3.json"
    guided = ("--schedule", path, "--labels", "2", "--guidance", "2")
    assert "conditions" not in capsys.readouterr().err
    assert call("sample", *words, *guided, "--out", tmp_path / "b") == 0
    assert "was fitted under other conditions" in capsys.readouterr().err
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    assert result["metrics"]["network_calls_each"] == 6
    expected = module.sample([0, 1, 2, 3], labels=2, guidance=2.0, schedule=Schedule.load(path))
    found = np.load(tmp_path / "b" / "samples.npz")["samples"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4)


def test_a_run_goes_on_exactly(images, tmp_path, monkeypatch, capsys):
    words = ("--data", images, "--epochs", 2, *TINY)
    assert call("train", *words, "--out", tmp_path / "a") == 0
    whole = load_network(tmp_path / "a" / "last.ckpt")

    def stop(module):
        if module.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GITSModule, "on_train_epoch_start", stop)
        assert call("train", *words, "--out", tmp_path / "b") == 1
    assert "goes on with --resume last" in capsys.readouterr().err
    assert call("train", *words, "--out", tmp_path / "b") == 2
    assert "pass --resume last, --overwrite" in capsys.readouterr().err
    assert call("train", *words, "--lr", 1, "--out", tmp_path / "b", "--resume", "last") == 2
    assert "lr was 0.002 and is now 1.0" in capsys.readouterr().err
    assert call("train", *words, "--out", tmp_path / "b", "--resume", "last") == 0
    again = load_network(tmp_path / "b" / "last.ckpt")
    assert again.images_seen == whole.images_seen
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_dry_run_writes_nothing(images, tmp_path):
    out = tmp_path / "a"
    words = ("--data", images, "--epochs", 2, "--nfe", "3", "--no-labels", *TINY)
    assert call("train", *words, "--dry-run", "--out", out) == 0
    assert not out.exists()


def test_epochs_follow_from_the_preset():
    quick = {**PRESETS["quick"], "preset": "quick"}
    assert epochs_for(quick, 1000, (8, 8)) == 150
    assert epochs_for(quick, 1000, (32, 32)) == 38
    assert epochs_for({**PRESETS["paper"], "preset": "paper"}, 1000, (8, 8)) == 200_000


def test_the_geometry_is_written_beside_a_run(tmp_path):
    from lightning.pytorch import Trainer
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    module = GITSModule("unet", (1, 8, 8), network_options={"width": 8})
    callback = TrajectoryStatsCallback(tmp_path / "t", samples=3, points=6, every=1)
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    data = DataLoader(torch.rand(8, 1, 8, 8), batch_size=8)
    Trainer(max_epochs=2, callbacks=[callback], **quiet).fit(module, data, data)
    made = sorted(path.name for path in (tmp_path / "t").iterdir())
    assert made == [f"trajectories-epoch{k}.{kind}" for k in (1, 2) for kind in ("npz", "png")]
    found = np.load(tmp_path / "t" / "trajectories-epoch2.npz")
    assert found["deviation_state"].shape == (4, 3)
    assert found["sigmas"][[0, -1]].tolist() == [80.0, 0.002]
    for wrong in ({"samples": 0}, {"points": 3}, {"every": 0}):
        with pytest.raises(ValueError, match="must be"):
            TrajectoryStatsCallback(tmp_path, **wrong)
