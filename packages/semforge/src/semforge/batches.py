"""Batches of pictures with their labels; chance follows from (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from papercommons.data.images import read_image
from papercommons.data.sampling import mix_seeds
from torch import Tensor
from torch.utils.data import Dataset

from semforge.augmentation import corrupt
from semforge.crops import squash
from semforge.entries import FaceList
from semforge.self_blending import self_blend

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class FaceBatch(NamedTuple):
    """What the module gets.

    Attributes:
        images: RGB, float32 in [0, 1], shape (N, 3, S, S).
        labels: 0, 1 or 2 = unknown, int8, shape (N, n).
        names: of the pictures.
        videos: which video each is from; empty for a picture on its own.
        methods: what made each.
    """

    images: Tensor
    labels: Tensor
    names: list[str]
    videos: list[str]
    methods: list[str]


class FaceDataset(Dataset[FaceBatch]):
    """Batches of some pictures.

    Args:
        faces: pictures.
        size: S.
        augment: share of the pictures that `semforge.augmentation.corrupt` corrupts.
        blend: share of the real pictures that `semforge.self_blending.self_blend` turns into fakes.
        blend_label: of those, int8, shape (n,).
        seed: of chance.
        change: what is done to each picture of size S.
    """

    def __init__(
        self,
        faces: FaceList,
        size: int,
        *,
        augment: float = 0.0,
        blend: float = 0.0,
        blend_label: np.ndarray | None = None,
        seed: int = 0,
        change: Change | None = None,
    ) -> None:
        self.entries, self.labels, self.size = faces.entries, faces.labels, size
        self.augment, self.blend, self.blend_label = augment, blend, blend_label
        self.seed, self.change = seed, change

    def __len__(self) -> int:
        return len(self.entries)

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> FaceBatch:
        """Return the batch of (epoch, index) pairs."""
        seen = [self.read(epoch, index) for epoch, index in items]
        images = torch.from_numpy(np.stack([image for image, _ in seen]))
        chosen = [self.entries[index] for _, index in items]
        return FaceBatch(
            images.permute(0, 3, 1, 2).float().div_(255).contiguous(),
            torch.from_numpy(np.stack([label for _, label in seen])),
            [entry.name for entry in chosen],
            [entry.video for entry in chosen],
            [entry.method for entry in chosen],
        )

    def read(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture as the network sees it in an epoch, and its label.

        Returns:
            uint8 (S, S, 3) and int8 (n,).

        Raises:
            DataError: it cannot be read.
        """
        image, label = np.asarray(read_image(self.entries[index].file)), self.labels[index]
        rng = np.random.default_rng(mix_seeds(self.seed, epoch, index))
        blended, corrupted = rng.random(2) < (self.blend, self.augment)
        if blended and label[0] == 0 and self.blend_label is not None:
            image, label = self_blend(image, rng), self.blend_label
        if corrupted:
            image = corrupt(image, rng)
        image = squash(image, self.size)
        return (self.change(image, rng) if self.change else image), label


class Again(Dataset[Any]):
    """A dataset as long as another: said again, or gone through over several epochs.

    Args:
        dataset: of batches, see `FaceDataset`.
        size: its length.
    """

    def __init__(self, dataset: FaceDataset, size: int) -> None:
        self.dataset, self.size = dataset, size

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> FaceBatch:
        """Return the batch of (epoch, index) pairs."""
        places = [(epoch * self.size + index) for epoch, index in items]
        return self.dataset.__getitems__([divmod(place, len(self.dataset)) for place in places])
