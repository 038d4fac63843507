"""Lightning callbacks: schedules and pictures of what a network has learnt so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from papercommons.files import atomic_path
from torch import Tensor

from gits_sampling.sample_pictures import to_uint8
from gits_sampling.solvers import steps_for


class _Every(Callback, ABC):
    """Calls `write` after every few epochs, and at the end of the run; on one process."""

    def __init__(self, every: int | None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every must be >= 1 epochs, or None, got {every}")
        self.every = every
        self._written = -1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write after every few epochs."""
        if self.every is not None and (trainer.current_epoch + 1) % self.every == 0:
            self._write_once(trainer, pl_module, trainer.current_epoch + 1)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write at the end, unless the last epoch did."""
        self._write_once(trainer, pl_module, trainer.current_epoch)

    def _write_once(self, trainer: Trainer, module: Any, epoch: int) -> None:
        if epoch == self._written:
            return
        self._written = epoch
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            self.write(module, epoch)

    @abstractmethod
    def write(self, module: Any, epoch: int) -> None:
        """Write what there is after `epoch` epochs."""


class GITSScheduleCallback(_Every):
    """Writes the best schedule of each budget, ``SOLVER-nfeN.json``, from one warm-up.

    Torch's global random numbers are not touched, so training is the same with and without it.

    Args:
        folder: gets the files, made if absent.
        nfes: budgets, network calls.
        solver: that will sample.
        order: its order.
        every: epochs between; None: only at the end of the run.
        **options: of `GITSModule.warm_up`, such as samples, labels, guidance.

    Raises:
        ValueError: a budget that the solver cannot have, or every < 1.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        nfes: Sequence[int] = range(4, 11),
        solver: str = "ipndm",
        order: int | None = None,
        every: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(every)
        for nfe in nfes:
            steps_for(solver, nfe)  # type: ignore[arg-type]
        self.folder, self.nfes, self.options = Path(folder), tuple(nfes), options
        self.solver, self.order = solver, order

    def write(self, module: Any, epoch: int) -> None:
        """Write the schedules."""
        of_model = {k: v for k, v in self.options.items() if k in ("labels", "guidance", "batch")}
        warm = module.warm_up(**self.options)
        for nfe in self.nfes:
            schedule = module.fit_schedule(
                nfe, solver=self.solver, order=self.order, warm=warm, **of_model
            )
            schedule.save(self.folder / f"{self.solver}-nfe{nfe}.json")


class SampleGridCallback(_Every):
    """Writes a picture of samples, ``samples-epochN.png``, always of the same seeds.

    Args:
        folder: gets the files, made if absent.
        seeds: of the samples; with classes, a sample's is its seed modulo their number.
        columns: samples in a row.
        every: epochs between; None: only at the end of the run.
        **options: of `GITSModule.sample`, such as labels, schedule, guidance.

    Raises:
        ValueError: no seeds, or columns or every < 1.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        seeds: Sequence[int] = range(64),
        columns: int = 8,
        every: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(every)
        if not seeds or columns < 1:
            raise ValueError(
                f"seeds must be given and columns >= 1, got {len(seeds)} and {columns}"
            )
        self.folder, self.seeds, self.columns = Path(folder), tuple(seeds), columns
        self.options = options

    def write(self, module: Any, epoch: int) -> None:
        """Write the picture."""
        images = module.sample(self.seeds, **self.options)
        write_grid(images, self.folder / f"samples-epoch{epoch}.png", columns=self.columns)


def write_grid(images: Tensor, path: str | Path, *, columns: int = 8) -> None:
    """Write images side by side as a PNG, whole or not at all.

    Args:
        images: [-1, 1] (beyond is cut off), float, shape (B, 1 or 3, H, W).
        path: of the file; its folder is made.
        columns: images in a row.

    Raises:
        ValueError: another shape.
    """
    from torchvision.io import write_png
    from torchvision.utils import make_grid

    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (B, 1 or 3, H, W), got {tuple(images.shape)}")
    grid = make_grid(to_uint8(images), nrow=columns, padding=1, pad_value=128)
    with atomic_path(path) as temporary:
        write_png(grid, str(temporary))
