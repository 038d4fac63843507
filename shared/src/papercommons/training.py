"""The only place that builds a Lightning Trainer: progress, history, checkpoints, exact resume."""

from __future__ import annotations

import contextlib
import inspect
import logging
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch import seed_everything as lightning_seed_everything
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from papercommons.checkpoint import read_torch_file
from papercommons.checks import check_at_least
from papercommons.cli import SECONDS_BETWEEN_LINES, DeviceOptions, RunOptions, log, show_progress
from papercommons.data.sampling import mix_seeds
from papercommons.errors import DataError, nearest, reason
from papercommons.files import prepare_out, write_csv
from papercommons.report import Section, curves_png

NO_VAL = "THERE IS NO VAL SPLIT: no best.ckpt, no threshold; the last epoch is what is saved"
_MAY_CHANGE = ("num_workers", "devices", "accelerator", "strategy", "compile", "trainer")


class History(Checkpoint):
    """Keeps one row of logged numbers per epoch, in the checkpoint and in metrics.csv.

    Where no bar shows it, it also logs an epoch's numbers in a line now and then. It is a
    `Checkpoint` so that Lightning calls it after the module has logged its epoch.

    Attributes:
        rows: one mapping per finished epoch: epoch (from 1), seconds, and every logged number.

    Args:
        folder: gets metrics.csv, rewritten whole after each epoch; None writes nothing.
        monitor: the number that the line has beside train/loss.
    """

    def __init__(self, folder: Path | None = None, monitor: str | None = None) -> None:
        self.folder = folder
        self.monitor = monitor
        self.rows: list[dict[str, float]] = []
        self._started = 0.0
        self._said = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        logged = {n: float(f"{float(v):.7g}") for n, v in trainer.callback_metrics.items()}
        seconds = time.perf_counter() - self._started
        self.rows.append({"epoch": trainer.current_epoch + 1, "seconds": seconds, **logged})
        if self.folder is not None and trainer.is_global_zero:
            write_csv(self.folder / "metrics.csv", self.rows)
        if not show_progress() and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            shown = [f"{n} {logged[n]:.4g}" for n in ("train/loss", self.monitor) if n in logged]
            of = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            log.info("%s, %.1f s: %s", of, seconds, ", ".join(shown) or "done")

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, so that a resumed run has its whole history."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of the run that is resumed."""
        self.rows = list(state_dict["rows"])


def history_section(
    rows: Sequence[Mapping[str, float]],
    panels: Mapping[str, Sequence[str]],
    *,
    caption: str = "Means over each epoch",
) -> Section:
    """Return the curves of a run.

    Args:
        rows: logged numbers, one row per epoch, at least one; see `History`.
        panels: title -> names of numbers; those that the last epoch has not are left out.
        caption: of the figure.
    """
    found = {
        title: {name: [row.get(name) for row in rows] for name in names if name in rows[-1]}
        for title, names in panels.items()
    }
    drawn = curves_png({title: curves for title, curves in found.items() if curves})
    return Section("Training", figure=drawn, caption=caption)


class EpochSeed(Callback):
    """Seeds torch anew in each epoch, so that a resumed run draws what the unbroken one drew.

    Noise and dropout then follow from seed, epoch, number of the process, and the steps before
    them in the epoch.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed before the first batch; the loader has drawn its own numbers by then."""
        if batch_idx == 0:
            torch.manual_seed(mix_seeds(self.seed, trainer.current_epoch, trainer.global_rank))


class _OneFile(ModelCheckpoint):
    """Keeps one checkpoint under a fixed name, and goes on with it where its folder was moved.

    A new one takes the place of the old one when it is whole: Lightning's own writing leaves half a
    file on a full disk.
    """

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(folder, name, enable_version_counter=False, **options)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        part = Path(f"{filepath}.part")
        try:
            super()._save_checkpoint(trainer, str(part))
            if trainer.is_global_zero:
                part.replace(filepath)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        trainer.strategy.barrier()
        self._last_checkpoint_saved = filepath

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of the run that is resumed, if its file is here."""
        here = f"{self.dirpath}/{self.filename}{self.FILE_EXTENSION}"
        if Path(here).is_file():
            kept = dict(zip([here], state_dict["best_k_models"].values(), strict=False))
            moved = {"dirpath": self.dirpath, "best_model_path": here, "best_k_models": kept}
            super().load_state_dict(state_dict | moved | {"kth_best_model_path": here})


def begin_run(settings: Mapping[str, Any], run: RunOptions) -> Path | None:
    """Make the output folder of a training command and return it; None in a dry run.

    Args:
        settings: every resolved option, plain types, with ``out``; None is the same as absent.
        run: options of the command.

    Raises:
        DataError: see `papercommons.files.prepare_out`.
    """
    if run.dry_run:
        return None
    return prepare_out(
        settings["out"],
        dict(settings),
        resume=run.resume,
        overwrite=run.overwrite,
        may_change=_MAY_CHANGE,
    )


def may_use_cuda(run: DeviceOptions) -> bool:
    """Return whether the run may use a CUDA device that is there."""
    return run.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def fit(
    module: LightningModule,
    data: LightningDataModule,
    *,
    epochs: int,
    run: RunOptions,
    out: Path | None = None,
    monitor: str | None = None,
    mode: str = "max",
    callbacks: Sequence[Callback] = (),
) -> tuple[Trainer, History]:
    """Train `module` on `data` and return the trainer and the history.

    Writes last.ckpt after each epoch and, where `monitor` is given, best.ckpt; metrics.csv; and
    TensorBoard events where tensorboard is installed. A resumed run goes on exactly as if it had
    not stopped, given data whose order depends on seed and epoch (`EpochSampler`).

    Args:
        module: what to train.
        data: its batches.
        epochs: passes over the training data, >= 1.
        run: options of the command.
        out: folder of the run, see `papercommons.files.prepare_out`; None writes nothing.
        monitor: a logged validation metric that chooses best.ckpt; None keeps no best.
        mode: whether its ``max`` or ``min`` is best.
        callbacks: further ones.

    Raises:
        DataError: the checkpoint to resume is missing or broken.
        ValueError: epochs < 1, or see `make_trainer`.
    """
    check_at_least(1, epochs=epochs)
    keep = out if not run.dry_run else None
    history = History(keep, monitor)
    extra: list[Callback] = [history, EpochSeed(run.seed), *callbacks]
    if keep is not None:
        if monitor is not None:
            extra.append(_OneFile(keep, "best", monitor=monitor, mode=mode))
        extra.append(_OneFile(keep, "last", save_on_train_epoch_end=True))
    checkpoint = None if keep is None else _find_checkpoint(keep, run.resume)
    trainer = make_trainer(run, epochs=epochs, callbacks=extra, log_to=keep)
    with _interruptible():
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return trainer, history


def load_best(module: LightningModule, folder: Path | None, history: History) -> str:
    """Load best.ckpt into a trained module, if there is one; return words for which epoch it is.

    Args:
        module: as `fit` left it.
        folder: of the run; None in a dry run.
        history: of `fit`.

    Returns:
        ``epoch 3, the best on val`` or ``epoch 10, the last``.
    """
    if folder is None or not (folder / "best.ckpt").is_file():
        return f"epoch {len(history.rows)}, the last"
    state = read_torch_file(folder / "best.ckpt")
    module.load_state_dict(state["state_dict"])
    return f"epoch {int(state['epoch']) + 1}, the best on val"


def run_files(folder: Path) -> dict[str, str]:
    """Return which of last.ckpt, best.ckpt and export/ a run's folder has, by short name."""
    names = {"last": "last.ckpt", "best": "best.ckpt", "export": "export"}
    return {name: str(folder / file) for name, file in names.items() if (folder / file).exists()}


def _find_checkpoint(folder: Path, resume: str | None) -> Path | None:
    if resume is None:
        return None
    path = folder / "last.ckpt" if resume == "last" else Path(resume)
    if not path.is_file():
        raise DataError(
            f"{path}: no such file: no epoch was finished, so start again with --overwrite"
            if resume == "last"
            else f"{path}: no such file; --resume takes last, or a checkpoint of the run"
        )
    state = read_torch_file(path, map_location="meta")
    if not isinstance(state, Mapping) or not {"state_dict", "loops", "callbacks"} <= state.keys():
        raise DataError(f"{path}: no checkpoint of a run (last.ckpt or best.ckpt); weights alone?")
    return path


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM be a KeyboardInterrupt: Lightning makes them exits without a word."""
    try:
        yield
    except SystemExit as stop:
        by_key = isinstance(stop.__context__, KeyboardInterrupt)
        if not by_key and not isinstance(stop, SIGTERMException):
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning left it ignored
        raise KeyboardInterrupt from None


def gather_predictions(
    module: LightningModule, loader: DataLoader[Any], *, run: DeviceOptions
) -> list[Any]:
    """Return what ``predict_step`` gives for every batch, from all processes, on each of them.

    Args:
        module: with a ``predict_step`` that returns tensors on the CPU and says which items it saw.
        loader: batches of this process (`EpochSampler` shares them out).
        run: options of the command.
    """
    trainer = make_trainer(run)
    with _interruptible():
        outputs = trainer.predict(module, loader) or []
    if trainer.world_size == 1:
        return list(outputs)
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, outputs)
    return [output for part in parts for output in part]


def make_trainer(
    run: DeviceOptions,
    *,
    epochs: int | None = None,
    callbacks: Sequence[Callback] = (),
    log_to: Path | None = None,
) -> Trainer:
    """Return a Trainer that logs to standard error only and leaves the order of data to the data.

    Args:
        run: options of the command; ``run.trainer`` overrides everything but callbacks and bars.
        epochs: passes over the training data; None for evaluation.
        callbacks: its callbacks.
        log_to: folder for TensorBoard events, where tensorboard is installed.

    Raises:
        ValueError: ``run.trainer`` has an option that the Trainer does not know, or
            the accelerator or its devices are not there.
    """
    quieten_lightning()
    known = inspect.signature(Trainer).parameters
    for name in run.trainer:
        if name not in known:
            raise ValueError(f"--trainer.{name}: no such option{nearest(name, known)}")
        if name == "callbacks":
            raise ValueError("--trainer.callbacks: callbacks are no option; give them in Python")
    bars: list[Callback] = []
    if show_progress() and run.trainer.get("enable_progress_bar", True):
        bars = [RichProgressBar(console_kwargs={"stderr": True}, leave=False)]
    logger = None
    if log_to is not None and find_spec("tensorboard") is not None:
        logger = TensorBoardLogger(log_to, name="", version="tensorboard")
    options: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": run.accelerator,
        "devices": int(run.devices) if run.devices.lstrip("-").isdecimal() else run.devices,
        "strategy": run.strategy,
        "precision": run.precision,
        "deterministic": run.deterministic or None,
        "fast_dev_run": isinstance(run, RunOptions) and run.dry_run,
        "callbacks": [*callbacks, *bars],
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "logger": logger or False,
        "default_root_dir": log_to,  # else a SLURM job writes to, and goes on from, where it began
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 50,
        "use_distributed_sampler": False,
    }
    try:
        return Trainer(**(options | run.trainer | {"enable_progress_bar": bool(bars)}))
    except Exception as error:
        raise ValueError(f"cannot run as asked: {reason(error)}") from error


def judging_options(run: RunOptions) -> RunOptions:
    """Return the options for judging what was trained: the same processes, no limits of training.

    Args:
        run: options of the command; of ``run.trainer`` only the number of machines stays.
    """
    kept = {name: value for name, value in run.trainer.items() if name == "num_nodes"}
    return replace(run, trainer=kept)


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch, also in data-loader workers, without a log line.

    Args:
        seed: >= 0.
    """
    lightning_seed_everything(seed, workers=True, verbose=False)


def quieten_lightning() -> None:
    """Silence Lightning's banners and hints; its real warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*The number of training batches.*",
        ".*Total length of `list` across ranks is zero.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*GPU available but not used.*",
        ".*treespec, LeafSpec.*",
        ".*You passed in a `val_dataloader` but have no `validation_step`.*",
        ".*isinstance.*LeafSpec.*",
        ".*module.s. in eval mode at the start of training.*",
        "It is recommended to use `self.log.*sync_dist=True",  # torchmetrics have done it
    ):
        warnings.filterwarnings("ignore", message)
