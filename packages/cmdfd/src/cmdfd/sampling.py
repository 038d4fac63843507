"""Batches by a budget of frames: few long clips, or many short ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from papercommons.data.sampling import EpochSampler, mix_seeds
from torch.utils.data import Sampler


def frame_budget_batches(
    lengths: Sequence[int], budget: int = 2000, *, cut: bool = True
) -> list[list[int]]:
    """Return the clips of each batch, the longest first (specification section 3.6).

    A batch holds ``max(1, budget // longest)`` clips, next to each other by length.

    Args:
        lengths: frames of each clip, >= 1.
        budget: frames of a batch, >= 1. Paper: 2000.
        cut: clips of a batch may differ in length and are to be cut to the shortest, as in the
            official code; else all clips of a batch have one length.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> frame_budget_batches([3, 9, 8, 4], 16)
        [[1], [2, 3], [0]]
        >>> frame_budget_batches([3, 9, 8, 4], 18)
        [[1, 2], [3, 0]]
    """
    if budget < 1 or min(lengths, default=1) < 1:
        raise ValueError(f"budget and lengths must be >= 1, got {budget}, {min(lengths)}")
    order = sorted(range(len(lengths)), key=lambda clip: -lengths[clip])
    batches: list[list[int]] = []
    room = 0
    for clip in order:
        if not room or (not cut and lengths[clip] != lengths[batches[-1][0]]):
            batches.append([])
            room = max(1, budget // lengths[clip])
        batches[-1].append(clip)
        room -= 1
    return batches


class FrameBudgetSampler(Sampler[list[tuple[int, int]]]):
    """Gives batches of (epoch, index) pairs; each process of a distributed run gets its share.

    Training mixes the order of the batches, and clips of equal length among themselves, by seed and
    epoch alone; a few batches are repeated so that all processes take equally many steps.
    Evaluation gives every clip once, uncut. Use it as ``sampler`` with ``batch_size=None``, so that
    the dataset makes the batches, and with ``Trainer(use_distributed_sampler=False)``.

    Args:
        lengths: frames of each clip, >= 1.
        budget: see `frame_budget_batches`.
        shuffle: training.
        seed: of the order.
        rank: number of this process; None asks torch.distributed when it is iterated.
        world_size: number of processes; None asks likewise.

    Raises:
        ValueError: a number below 1; fewer batches than processes (when it is iterated).
    """

    def __init__(
        self,
        lengths: Sequence[int],
        budget: int = 2000,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.lengths, self.budget, self.shuffle, self.seed = list(lengths), budget, shuffle, seed
        self._places = EpochSampler(
            len(frame_budget_batches(self.lengths, budget, cut=shuffle)),
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    def set_epoch(self, epoch: int) -> None:
        """Take the order of `epoch` (from 0) from the next iteration on; Lightning calls this."""
        self._places.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self._places.epoch
        order = list(range(len(self.lengths)))
        if self.shuffle:
            chance = torch.Generator().manual_seed(mix_seeds(self.seed, epoch, 1))
            order = torch.randperm(len(order), generator=chance).tolist()
        lengths = [self.lengths[clip] for clip in order]
        batches = frame_budget_batches(lengths, self.budget, cut=self.shuffle)
        for _, place in self._places:
            yield [(epoch, order[clip]) for clip in batches[place]]
