"""Pictures that are read once and stay in memory, so that no epoch decodes them again."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from papercommons.data.images import read_image
from papercommons.data.sampling import batch_loader, mix_seeds
from semforge.batches import Again, Change, FaceDataset
from semforge.entries import FaceList
from torch.utils.data import DataLoader, Dataset

FAR = 5  # pixels
Pictures = dict[str, np.ndarray]


def read_pictures(faces: FaceList) -> Pictures:
    """Return name -> picture, uint8, shape (S, S, 3)."""
    return {entry.name: np.asarray(read_image(entry.file)) for entry in faces.entries}


def vary(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture in other colours, moved by whole pixels, in half of all cases mirrored.

    Traces of generators stay, what tells one picture of few people from another does not.

    Args:
        image: uint8, shape (S, S, 3).
        rng: where chance comes from.
    """
    if rng.random() < 0.5:
        image = image[:, ::-1]
    gains, offset = rng.uniform(0.75, 1.25, 3), rng.uniform(-25, 25)
    colours = np.rint(np.arange(256)[:, None] * gains + offset).clip(0, 255).astype(np.uint8)
    image = np.stack([colours[:, c][image[..., c]] for c in range(3)], axis=-1)
    top, left = rng.integers(0, 2 * FAR + 1, 2)
    wider = np.pad(image, ((FAR, FAR), (FAR, FAR), (0, 0)), mode="edge")
    return wider[top : top + len(image), left : left + len(image)]


class InMemory(FaceDataset):
    """Batches of pictures in memory.

    Args:
        faces: which pictures.
        pictures: these, and maybe others; all of one size S.
        seed: of chance.
        change: what is done to each.
    """

    def __init__(
        self, faces: FaceList, pictures: Pictures, *, seed: int = 0, change: Change | None = None
    ) -> None:
        self.images = [pictures[name] for name in faces.names]
        super().__init__(faces, len(self.images[0]), seed=seed, change=change)

    def read(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture in an epoch, uint8 (S, S, 3), and its label, int8 (n,)."""
        image, label = self.images[index], self.labels[index]
        if self.change is None:
            return image, label
        rng = np.random.default_rng(mix_seeds(self.seed, epoch, index))
        return self.change(image, rng), label


class TrainingData(LightningDataModule):
    """Shuffled, varied training batches; for Auto-lambda with second ones of the same pictures.

    Args:
        faces: what is trained on.
        pictures: see `InMemory`.
        batch_size: pictures per step.
        meta: ``train`` for Auto-lambda, as in the paper's code.
        seed: of order and chance.
    """

    def __init__(
        self,
        faces: FaceList,
        pictures: Pictures,
        *,
        batch_size: int,
        meta: Literal["train"] | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.faces, self.pictures = faces, pictures
        self.batch_size, self.meta, self.seed = batch_size, meta, seed

    def train_dataloader(self) -> Any:
        """Return batches, or mappings of ``train`` and ``meta``."""
        train = self._dataset(self.seed)
        if self.meta is None:
            return self._loader(train, self.seed)
        seed = mix_seeds(self.seed, 1)
        meta = Again(self._dataset(seed), len(train))
        loaders = {"train": self._loader(train, self.seed), "meta": self._loader(meta, seed)}
        return CombinedLoader(loaders, "min_size")

    def val_dataloader(self) -> list[Any]:
        """Return none: training goes on for a fixed time."""
        return []

    def _dataset(self, seed: int) -> InMemory:
        return InMemory(self.faces, self.pictures, seed=seed, change=vary)

    def _loader(self, dataset: Dataset[Any], seed: int) -> DataLoader[Any]:
        return batch_loader(
            dataset, batch_size=self.batch_size, seed=seed, shuffle=True, whole=True
        )
