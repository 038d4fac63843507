"""This file is also a program: two processes of it check the distributed half, see the end.

So it stays in one piece, of over 400 lines.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from papercommons.cli import RunOptions, leave_process_group
from papercommons.data.sampling import EpochSampler
from papercommons.errors import DataError
from papercommons.training import (
    fit,
    gather_predictions,
    load_best,
    run_files,
    seed_everything,
)
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

SIZE = 12


class Numbers(Dataset):
    """Item i of epoch e is noise that follows from both, and i itself."""

    def __len__(self):
        return SIZE

    def __getitem__(self, place):
        epoch, index = place
        generator = torch.Generator().manual_seed(1000 * epoch + index)
        return torch.randn(4, generator=generator), torch.tensor(index)


class Data(LightningDataModule):
    """Batches of three, unless said otherwise."""

    def __init__(self, seed=0, val=True, batch_size=3):
        super().__init__()
        self.seed, self.val, self.batch_size = seed, val, batch_size

    def loader(self, *, shuffle):
        sampler = EpochSampler(SIZE, shuffle=shuffle, seed=self.seed)
        return DataLoader(Numbers(), batch_size=self.batch_size, sampler=sampler)

    def train_dataloader(self):
        return self.loader(shuffle=True)

    def val_dataloader(self):
        return self.loader(shuffle=False) if self.val else []


class Toy(LightningModule):
    """Learns to say the index; has dropout, a momentum, a schedule, and a val score made to order.

    Args:
        scores: val/score of each epoch.
    """

    def __init__(self, scores=(1.0, 3.0, 2.0, 4.0)):
        super().__init__()
        self.scores = list(scores)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        loss = F.mse_loss(self.net(batch[0])[:, 0], batch[1].float() / SIZE)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        self.log("val/score", self.scores[self.current_epoch])

    def predict_step(self, batch, batch_idx):
        return batch[1], self.net(batch[0])[:, 0]

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Stop(Callback):
    """Raises at the end of an epoch, as a crash or Ctrl-C does.

    Args:
        epoch: from 0.
        error: what to raise.
    """

    def __init__(self, epoch, error):
        self.epoch, self.error = epoch, error

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise self.error


def run_options(**changes):
    return RunOptions(**{"accelerator": "cpu", "seed": 5} | changes)


def train(out, *, epochs=4, callbacks=(), module=None, data=None, monitor="val/score", **options):
    """Train a toy from its seed and return it with its history."""
    run = run_options(**options)
    seed_everything(run.seed)
    module = module or Toy()
    data = data or Data()
    _, history = fit(
        module, data, epochs=epochs, run=run, out=out, monitor=monitor, callbacks=callbacks
    )
    return module, history


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def same_weights(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def load(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four epochs at once: folder, module, history."""
    out = tmp_path_factory.mktemp("whole")
    module, history = train(out)
    return out, module, history


@pytest.fixture
def broken_off(tmp_path):
    """The folder of a run of four epochs that failed after two."""
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        train(out, callbacks=[Stop(2, RuntimeError("power cut"))])
    return out


def test_fit_writes_what_a_run_needs(whole):
    out, module, history = whole
    names = {path.name for path in out.iterdir()} - {"tensorboard"}
    assert names == {"metrics.csv", "last.ckpt", "best.ckpt"}
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["val/score"]) for row in rows] == [1, 3, 2, 4]
    assert [row["lr"] for row in rows] == ["0.1", "0.05", "0.025", "0.0125"]
    assert [float(row["train/loss"]) for row in rows] == [r["train/loss"] for r in history.rows]
    assert all(float(row["seconds"]) > 0 for row in rows)
    last = load(out / "last.ckpt")
    assert last["epoch"] == 3
    assert same_weights(last["state_dict"], module.state_dict())


def test_a_resumed_run_goes_on_exactly(whole, broken_off):
    out, module, history = whole
    assert load(broken_off / "last.ckpt")["epoch"] == 1
    torch.manual_seed(99)
    resumed, again = train(broken_off, resume="last")
    assert same_weights(resumed.state_dict(), module.state_dict())
    assert without_time(again.rows) == without_time(history.rows)
    assert [row["epoch"] for row in again.rows] == [1, 2, 3, 4]
    for name in ("last.ckpt", "best.ckpt"):
        one, other = load(broken_off / name), load(out / name)
        assert one["epoch"] == other["epoch"]
        assert same_weights(one["state_dict"], other["state_dict"])
        assert one["lr_schedulers"] == other["lr_schedulers"]
        momenta = [state["optimizer_states"][0]["state"] for state in (one, other)]
        assert all(same_weights(momenta[0][i], momenta[1][i]) for i in momenta[0])


def test_a_finished_run_resumes_to_itself(whole, tmp_path):
    out, module, history = whole
    shutil.copytree(out, tmp_path / "copy")
    resumed, again = train(tmp_path / "copy", resume="last")
    assert same_weights(resumed.state_dict(), module.state_dict())
    assert without_time(again.rows) == without_time(history.rows)


def test_best_is_chosen_on_val_also_where_the_folder_moved(broken_off, tmp_path):
    moved = tmp_path / "elsewhere"
    broken_off.rename(moved)
    assert load(moved / "best.ckpt")["epoch"] == 1
    train(moved, resume=str(moved / "last.ckpt"), module=Toy([1.0, 3.0, 2.0, 2.5]))
    assert load(moved / "best.ckpt")["epoch"] == 1
    assert load(moved / "last.ckpt")["epoch"] == 3


def test_best_may_be_least_and_is_absent_without_val(tmp_path):
    run, options = run_options(), {"monitor": "val/score", "mode": "min"}
    fit(Toy([2.0, 1.0]), Data(), epochs=2, run=run, out=tmp_path / "a", **options)
    assert load(tmp_path / "a" / "best.ckpt")["epoch"] == 1
    fit(Toy(), Data(val=False), epochs=1, run=run, out=tmp_path / "b")
    assert {path.name for path in (tmp_path / "b").iterdir()} >= {"last.ckpt", "metrics.csv"}
    assert not (tmp_path / "b" / "best.ckpt").exists()


def test_the_best_epoch_is_loaded(broken_off, tmp_path):
    module, history = train(broken_off, resume="last", module=Toy([1.0, 3.0, 2.0, 2.5]))
    assert load_best(module, None, history) == "epoch 4, the last"
    assert load_best(module, broken_off, history) == "epoch 2, the best on val"
    assert same_weights(module.state_dict(), load(broken_off / "best.ckpt")["state_dict"])
    (broken_off / "export").mkdir()
    assert run_files(broken_off) == {
        "last": str(broken_off / "last.ckpt"),
        "best": str(broken_off / "best.ckpt"),
        "export": str(broken_off / "export"),
    }


def test_without_a_best_epoch_the_last_one_stays(tmp_path):
    module, history = train(tmp_path, epochs=2, data=Data(val=False), monitor=None)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert load_best(module, tmp_path, history) == "epoch 2, the last"
    assert same_weights(module.state_dict(), before)
    assert run_files(tmp_path) == {"last": str(tmp_path / "last.ckpt")}


def test_a_full_disk_leaves_the_last_whole_checkpoint(tmp_path, monkeypatch):
    def save(self, path, *rest):
        if self.current_epoch < 2:
            return saved(self, path, *rest)
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    saved = Trainer.save_checkpoint
    monkeypatch.setattr(Trainer, "save_checkpoint", save)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path)
    assert load(tmp_path / "last.ckpt")["epoch"] == 1
    assert not list(tmp_path.glob("*.part"))


def test_equal_seeds_give_equal_weights(whole):
    again, _ = train(None, monitor=None)
    assert same_weights(again.state_dict(), whole[1].state_dict())
    other, _ = train(None, monitor=None, seed=6)
    assert not same_weights(other.state_dict(), whole[1].state_dict())


class Draw(Callback):
    """Notes a random number in each epoch."""

    def __init__(self):
        self.drawn = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.drawn.append(float(torch.rand(())))


def test_noise_follows_from_seed_and_epoch():
    drawn = []
    for seed in (1, 1, 2):
        draw = Draw()
        train(None, epochs=3, monitor=None, seed=seed, callbacks=[draw])
        drawn.append(draw.drawn)
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 6


def test_dry_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, history = train(tmp_path / "out", dry_run=True, resume="last")
    assert list(tmp_path.iterdir()) == []
    assert len(history.rows) == 1


def test_nothing_is_printed(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, _ = train(tmp_path / "out", epochs=1)
    gather_predictions(module, Data().loader(shuffle=False), run=run_options())
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_off_a_terminal_a_line_tells_of_an_epoch(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("papercommons.training.SECONDS_BETWEEN_LINES", 0)
    with caplog.at_level("INFO", "papercommons"):
        train(tmp_path / "out", epochs=2)
    first, second = caplog.messages
    assert re.fullmatch(r"epoch 1 of 2, \d+\.\d s: train/loss \d\.\d+, val/score 1", first)
    assert second.endswith("val/score 3")


def test_an_interrupt_is_one(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, callbacks=[Stop(1, KeyboardInterrupt())])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert load(tmp_path / "last.ckpt")["epoch"] == 0


class Terminate(Callback):
    """Does in the second epoch what a cluster does to a job that has to make room."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 0):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_terminated_run_counts_as_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, callbacks=[Terminate()])
    assert load(tmp_path / "last.ckpt")["epoch"] == 0


def test_exits_of_others_pass(tmp_path):
    with pytest.raises(SystemExit, match="7"):
        train(None, monitor=None, callbacks=[Stop(1, SystemExit(7))])


def test_epochs_must_be_positive(tmp_path):
    for epochs in (0, -1):
        with pytest.raises(ValueError, match=f"--epochs must be >= 1, got {epochs}"):
            train(tmp_path, epochs=epochs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "last.ckpt: no such file: no epoch was finished, so start again with --overwrite"),
        (b"", "last.ckpt: not "),
        (b"no checkpoint", "last.ckpt: not read"),
        ({"a": torch.ones(1)}, "last.ckpt: no checkpoint of a run"),
        ([1], "last.ckpt: no checkpoint of a run"),
    ],
)
def test_checkpoints_that_cannot_be_resumed(tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "last.ckpt").write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(DataError, match=message):
        train(tmp_path, resume="last")
    with pytest.raises(DataError, match="no such file; --resume takes last, or"):
        train(tmp_path, resume=str(tmp_path / "other.ckpt"))


def predictions():
    """Return values by index and the order they came in, from all processes."""
    seed_everything(3)
    module = Toy().eval()
    seen = gather_predictions(module, Data().loader(shuffle=False), run=ddp_options())
    index, value = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return index, value[index.argsort()]


def ddp_options():
    """Two processes under torchrun, else one."""
    many = "WORLD_SIZE" in os.environ
    return run_options(devices="2" if many else "1", strategy="ddp" if many else "auto")


def trained(out, batch_size):
    """Return the weights after training without dropout and norm: they look at whole batches."""
    seed_everything(3)
    module = Toy()
    module.net = nn.Linear(4, 1)
    data = Data(batch_size=batch_size)
    monitor = None if out is None else "val/score"
    fit(module, data, epochs=2, run=ddp_options(), out=out, monitor=monitor)
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_predictions_of_one_process():
    index, value = predictions()
    assert index.tolist() == list(range(SIZE))
    assert value.shape == (SIZE,)


@pytest.mark.ddp
def test_two_processes_give_what_one_gives(tmp_path):
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", *launch, __file__, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    ) as process:
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.terminate()  # and its two with it
            out, err = process.communicate()
    assert process.returncode == 0, err
    assert out == ""
    index, value = predictions()
    weights = trained(None, batch_size=6)
    for rank in (0, 1):
        seen = load(tmp_path / f"{rank}.pt")
        assert sorted(seen["index"].tolist()) == index.tolist()
        assert torch.allclose(seen["value"], value, atol=1e-6)
        for name in weights:
            assert torch.allclose(seen["weights"][name], weights[name], atol=1e-6)
    assert load(tmp_path / "run" / "best.ckpt")["epoch"] == 1
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3


def main(folder):
    """Be one of two processes."""
    index, value = predictions()
    weights = trained(folder / "run", batch_size=3)
    seen = {"index": index, "value": value, "weights": weights}
    torch.save(seen, folder / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_process_group()
