"""An order of items that depends on seed and epoch alone, so that a resumed run repeats none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """Gives (epoch, index) pairs; each process of a distributed run gets its share by itself.

    The epoch reaches the dataset with the index, so that augmentation can be a function of seed,
    epoch and index: the same whatever the number of workers and whenever the run was resumed.
    Training repeats a few items so that all processes take equally many steps; evaluation repeats
    none. Use it with ``Trainer(use_distributed_sampler=False)``.

    Args:
        size: number of items.
        shuffle: a new order each epoch (training); else 0, 1, 2, ...
        seed: of the order.
        rank: number of this process; None asks torch.distributed when it is iterated.
        world_size: number of processes; None asks likewise.

    Raises:
        ValueError: fewer items than processes (when it is iterated).
    """

    def __init__(
        self,
        size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.size, self.shuffle, self.seed, self.epoch = size, shuffle, seed, 0
        self._place = (rank, world_size) if rank is not None and world_size is not None else None

    def _share(self) -> tuple[int, int]:
        """Return rank and world size, asked late: the process group may begin after the sampler."""
        rank, world_size = self._place or (0, 1)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self._place is None and distributed:
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        if self.size < world_size:
            raise ValueError(f"{self.size} items cannot be shared by {world_size} processes")
        return rank, world_size

    def set_epoch(self, epoch: int) -> None:
        """Take the order of `epoch` (from 0) from the next iteration on; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        rank, world_size = self._share()
        if self.shuffle:
            return -(-self.size // world_size)
        return len(range(rank, self.size, world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, world_size = self._share()
        order = torch.arange(self.size)
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seeds(self.seed, self.epoch))
            order = torch.randperm(self.size, generator=generator)
            order = torch.cat([order, order[: len(self) * world_size - self.size]])
        epoch = self.epoch
        yield from ((epoch, index) for index in order[rank::world_size].tolist())


def batch_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    seed: int,
    shuffle: bool = False,
    whole: bool = False,
    num_workers: int = 0,
) -> DataLoader[Any]:
    """Return a loader of the batches that a dataset makes itself.

    Args:
        dataset: with ``__len__``, and ``__getitems__`` that turns (epoch, index) pairs of
            `EpochSampler` into one batch.
        batch_size: items per batch and process, >= 1.
        seed: of the order.
        shuffle: a new order each epoch.
        whole: while shuffling, leave out a last, smaller batch, unless it is the only one.
        num_workers: processes that prepare batches.
    """
    size = len(dataset)  # type: ignore[arg-type]
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(size, shuffle=shuffle, seed=seed),
        collate_fn=_as_it_is,
        drop_last=whole and shuffle and size > batch_size,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def mix_seeds(*parts: int) -> int:
    """Return a seed in [0, 2^63) that changes in all its bits when any part changes.

    Args:
        parts: integers >= 0, e.g. seed, epoch, index.
    """
    state = 0
    for part in parts:
        state = (state ^ (part + 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
