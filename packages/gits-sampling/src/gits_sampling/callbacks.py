"""Lightning callbacks: schedules, samples and geometry of what a network has learnt so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from papercommons.data.sampling import mix_seeds
from papercommons.files import atomic_path

from gits_sampling.analysis import trajectory_statistics
from gits_sampling.euler import euler_trajectories
from gits_sampling.latents import draw_latents
from gits_sampling.sample_pictures import write_grid
from gits_sampling.sigmas import polynomial
from gits_sampling.solvers import steps_for
from gits_sampling.trajectory_pictures import statistics_png


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


class TrajectoryStatsCallback(_Every):
    """Writes the geometry of the trajectories, ``trajectories-epochN.npz`` and ``.png``.

    Magnitude, deviation, distance and cosine of `gits_sampling.trajectory_statistics`, always from
    the same latents, by Euler's method on the polynomial grid.

    Args:
        folder: gets the files, made if absent.
        samples: trajectories, >= 1.
        points: of each, >= 4.
        seed: of the latents.
        every: epochs between; None: only at the end of the run.
        **options: of `GITSModule.denoiser`, such as labels, guidance.

    Raises:
        ValueError: samples, points or every out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        samples: int = 64,
        points: int = 51,
        seed: int = 0,
        every: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(every)
        if samples < 1 or points < 4:
            raise ValueError(f"samples must be >= 1 and points >= 4, got {samples} and {points}")
        self.folder, self.samples, self.points = Path(folder), samples, points
        self.seed, self.options = seed, options

    def write(self, module: Any, epoch: int) -> None:
        """Write numbers and picture."""
        seeds = [mix_seeds(self.seed, k) for k in range(self.samples)]
        like = next(module.average.parameters())
        latents = draw_latents(seeds, module.shape, module.sigma_max, like.detach())
        grid = polynomial(self.points, module.sigma_min, module.sigma_max)
        denoiser = module.denoiser(**self.options)
        states, denoised = euler_trajectories(denoiser, latents, grid, batch=self.samples)
        found = trajectory_statistics(states, denoised, grid)
        values = {field.name: getattr(found, field.name).numpy() for field in fields(found)}
        path = self.folder / f"trajectories-epoch{epoch}.npz"
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **values)
        with atomic_path(path.with_suffix(".png")) as temporary:
            temporary.write_bytes(statistics_png(found))
