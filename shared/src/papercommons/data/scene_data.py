"""Scenes of coloured shapes as training data for text-to-image models."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from papercommons.data.sampling import batch_loader, mix_seeds
from papercommons.data.scenes import (
    UNIT,
    Preset,
    Scene,
    draw_caption,
    draw_scene,
    find_preset,
)


class SceneBatch(NamedTuple):
    """Pictures and what they show.

    Attributes:
        images: float32 in [-1, 1], shape (N, 3, H, H).
        captions: N sentences.
    """

    images: Tensor
    captions: list[str]


class SceneDataset(Dataset[Any]):
    """Batches of scenes; each epoch says something else about them, as its preset wants.

    Args:
        scenes: what is drawn.
        size: H, pixels.
        seed: of the captions.

    Attributes:
        says_all: whether captions say everything, whatever the preset wants.
    """

    def __init__(self, scenes: Sequence[Scene], *, size: int = UNIT, seed: int = 0) -> None:
        self.scenes, self.seed, self.says_all = scenes, seed, False
        pictures = np.stack([scene.render(size) for scene in scenes])
        self.pictures = torch.from_numpy(pictures).movedim(-1, 1).contiguous()

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> SceneBatch:
        """Return the batch of (epoch, number of the scene) pairs."""
        images = as_images(self.pictures[[number for _, number in items]])
        return SceneBatch(images, [self._caption(*item) for item in items])

    def _caption(self, epoch: int, number: int) -> str:
        if self.says_all:
            return self.scenes[number].caption()
        rng = np.random.default_rng(mix_seeds(self.seed, epoch, number))
        return draw_caption(rng, self.scenes[number])


class SceneData(LightningDataModule):
    """Scenes for training and validation, made from a seed; none is in both.

    Scenes for tests come from `draw_scenes` with another seed.

    Args:
        preset: simple or crowded.
        train: number of training scenes, >= 1.
        val: number of validation scenes, >= 1.
        size: side of a picture in pixels, >= 16.
        batch_size: pictures per step and process.
        seed: of scenes, captions and order.
        num_workers: processes that gather batches; rarely worth it.

    Raises:
        ValueError: an unknown preset, or a number out of range.
    """

    def __init__(
        self,
        preset: str = "simple",
        *,
        train: int = 6000,
        val: int = 200,
        size: int = UNIT,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        least = {"train": 1, "val": 1, "size": 16, "batch_size": 1}
        given = {"train": train, "val": val, "size": size, "batch_size": batch_size}
        for name, value in given.items():
            if value < least[name]:
                raise ValueError(f"{name} must be >= {least[name]}, got {value}")
        self.preset = find_preset(preset)
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        scenes = draw_scenes(self.preset, train + val, seed=seed)
        self.train = SceneDataset(scenes[:train], size=size, seed=seed)
        self.val = SceneDataset(scenes[train:], size=size, seed=seed)

    def saying_all(self) -> SceneData:
        """Return the same scenes with captions that say everything."""
        other = copy.copy(self)
        other.train, other.val = copy.copy(self.train), copy.copy(self.val)
        other.train.says_all = other.val.says_all = True
        return other

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled training batches; a last, smaller one is left out."""
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation scenes, in order."""
        return self._loader(self.val)

    def _loader(self, dataset: SceneDataset, *, shuffle: bool = False) -> DataLoader[Any]:
        return batch_loader(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            whole=True,
            num_workers=self.num_workers,
        )


def draw_scenes(
    preset: Preset, count: int, *, seed: int, held_out: bool | None = False
) -> list[Scene]:
    """Return random scenes; the first n are the same whatever the count.

    Args:
        preset: what they are made of.
        count: how many.
        seed: >= 0.
        held_out: see `papercommons.data.scenes.draw_scene`.
    """
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, preset, held_out=held_out) for _ in range(count)]


def as_images(pictures: Tensor) -> Tensor:
    """Return pictures as a model takes them: uint8 to float32 in [-1, 1], same shape."""
    return pictures.float() / 127.5 - 1
