"""Batches of word images and of pairs, under one LightningDataModule.

All images are decoded once and kept as bytes (4 kB each); what a step needs is then one gather, and
augmentation runs on the whole batch where the network is. The order follows from (seed, epoch).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from papercommons.data.pairs import Pairs
from papercommons.data.sampling import batch_loader
from papercommons.data.word_parts import divide_words
from papercommons.data.words import Words, open_words
from papercommons.errors import DataError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

log = logging.getLogger("papercommons")

MOST_VAL_PAIRS = 2000  # each costs two images; calibration takes all


class ImageBatch(NamedTuple):
    """Word images.

    Attributes:
        images: dark on white, uint8, shape (B, C, H, W).
        writers: class number of each writer among the labelled training writers, -1 for others,
            int64, shape (B,).
        indices: place of each image in the set, int64, shape (B,).
        partners: what each image is compared with in pre-training: another word of its page, uint8,
            shape (B, C, H, W); None is the image itself.
    """

    images: Tensor
    writers: Tensor
    indices: Tensor
    partners: Tensor | None = None


class PairBatch(NamedTuple):
    """Pairs of word images.

    Attributes:
        left: dark on white, uint8, shape (B, C, H, W).
        right: likewise.
        same: 1 for one writer, else 0, int64, shape (B,).
    """

    left: Tensor
    right: Tensor
    same: Tensor


class ImageDataset(Dataset[ImageBatch]):
    """Batches of some images.

    Args:
        images: uint8, shape (N, C, H, W).
        writers: class numbers, int64, shape (N,).
        indices: places of those wanted.
        groups: one per place wanted; a partner is drawn from the others of its group, anew in each
            epoch. None: every image is its own partner.
        seed: of the partners.
    """

    def __init__(
        self,
        images: Tensor,
        writers: Tensor,
        indices: Sequence[int],
        groups: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.images, self.writers, self.seed = images, writers, seed
        self.indices = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        self.partners = None if groups is None else Partners(groups)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> ImageBatch:
        """Return the batch of (epoch, number in `indices`) pairs."""
        numbers = np.array([number for _, number in items])
        places = self.indices[numbers]
        batch = ImageBatch(self.images[places], self.writers[places], places)
        if self.partners is None:
            return batch
        generator = np.random.default_rng([self.seed, *items[0]])
        others = self.indices[self.partners.draw(numbers, generator)]
        return batch._replace(partners=self.images[others])


class Partners:
    """Draws other members of the same group.

    Args:
        groups: name of the group of each item.

    Attributes:
        alone: number of items whose group has no other; they are their own partners.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        _, number = np.unique(np.asarray(groups), return_inverse=True)
        self.order = np.argsort(number, kind="stable")
        sizes = np.bincount(number)
        self.first, self.size = (np.cumsum(sizes) - sizes)[number], sizes[number]
        self.rank = np.empty_like(self.order)
        self.rank[self.order] = np.arange(len(self.order))
        self.alone = int((self.size == 1).sum())

    def draw(self, items: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return an item of the same group for each, another one where there is one, shape (B,)."""
        first, size = self.first[items], self.size[items]
        step = 1 + generator.integers(0, np.maximum(size - 1, 1))
        return self.order[first + (self.rank[items] - first + step) % size]


class PairDataset(Dataset[PairBatch]):
    """Batches of pairs.

    Args:
        images: uint8, shape (N, C, H, W).
        pairs: of places in `images`.
    """

    def __init__(self, images: Tensor, pairs: Pairs) -> None:
        self.images = images
        self.left, self.right = torch.as_tensor(pairs.left), torch.as_tensor(pairs.right)
        self.same = torch.as_tensor(pairs.same)

    def __len__(self) -> int:
        return len(self.same)

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> PairBatch:
        """Return the batch of (epoch, number of the pair) pairs."""
        places = torch.tensor([number for _, number in items])
        left, right = self.images[self.left[places]], self.images[self.right[places]]
        return PairBatch(left, right, self.same[places])


class WordData(LightningDataModule):
    """Word images by writer, divided, with the pairs of each split.

    Args:
        data: folder, see `papercommons.data.words.open_words`; or words already opened.
        batches: what training sees: ``images`` (the whole training split, unlabelled), ``pairs``
            or ``writers`` (both of the labelled training writers alone).
        positives: what ``images`` are compared with: ``word``, the word itself, or ``page``,
            another word of its page (known to be of one writer: a weak label).
        split_by: see `papercommons.data.words.split_words`; ``auto`` is unseen for CEDAR AND, the
            folder's own where it has one, else by writer.
        variant: clean, or all with CEDAR's wrong words.
        writer_fraction: share of the training writers whose labels are used, in (0, 1].
        val_fraction: share of those held out for threshold, calibration and the choice of
            best.ckpt.
        pairs: CSV or parquet file of training pairs instead of generated ones.
        max_per_writer: most same-writer pairs of one writer.
        batch_size: images or pairs per step and process.
        seed: of splits, pairs and order.
        num_workers: processes that gather batches; rarely worth it.
        in_channels: C, 1 or 3 equal ones.
        resize: fit images of other sizes into squares of this side.
        verify: compare every image with the checksum that the pack gives.
        skip_bad: leave out images that cannot be used (they are named) instead of stopping.
        allow_writer_overlap: accept writers in both training and test split.

    Attributes:
        words: the set.
        images: uint8, shape (N, C, H, W).
        split_by: how it is divided.
        splits: ``unlabelled`` (the whole training split), ``train``, ``val``, ``test`` -> places.
        pairs: ``train``, ``val``, ``test`` -> `Pairs`.
        writers: names of the labelled training writers, in the order of their class numbers.

    Raises:
        ValueError: an option out of range.
        DataError: see `open_words`, `divide_words`.
    """

    def __init__(
        self,
        data: str | Words,
        *,
        batches: Literal["images", "pairs", "writers"] = "images",
        positives: Literal["word", "page"] = "word",
        split_by: str = "auto",
        variant: Literal["clean", "all"] = "clean",
        writer_fraction: float = 1.0,
        val_fraction: float = 0.1,
        pairs: str | None = None,
        max_per_writer: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
        num_workers: int = 0,
        in_channels: int = 1,
        resize: int | None = None,
        verify: bool = False,
        skip_bad: bool = False,
        allow_writer_overlap: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 2:
            raise ValueError(f"batch_size must be >= 2 (batch statistics need two): {batch_size}")
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 or 3, got {in_channels}")
        self.batches, self.batch_size, self.seed = batches, batch_size, seed
        self.positives = positives
        self.num_workers = num_workers
        words = data
        if not isinstance(words, Words):
            words = open_words(
                str(data), variant=variant, verify=verify, skip_bad=skip_bad, resize=resize
            )
        self.words = words
        divided = divide_words(
            words,
            split=split_by,
            writer_fraction=writer_fraction,
            val_fraction=val_fraction,
            pairs=pairs,
            max_per_writer=max_per_writer,
            seed=seed,
            allow_writer_overlap=allow_writer_overlap,
        )
        self.split_by = divided.split
        self.splits = divided.places
        self.pairs = divided.pairs
        self.images = load_images(words, in_channels)
        self.writers = sorted({words.writers[place] for place in self.splits["train"]})
        number = {writer: k for k, writer in enumerate(self.writers)}
        self.writer_numbers = torch.tensor([number.get(writer, -1) for writer in words.writers])

    @property
    def has_val(self) -> bool:
        """Whether there are pairs of held-out writers to choose with."""
        return self.batches != "images" and len(self.pairs["val"]) > 0

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled training batches; a last, smaller one is left out."""
        if self.batches == "pairs":
            return self._loader(PairDataset(self.images, self.pairs["train"]), shuffle=True)
        places = self.splits["unlabelled" if self.batches == "images" else "train"]
        groups = self._pages(places) if self.positives == "page" else None
        dataset = ImageDataset(self.images, self.writer_numbers, places, groups, self.seed)
        if dataset.partners is not None and dataset.partners.alone:
            log.info("words alone on their page, their own partners: %d", dataset.partners.alone)
        return self._loader(dataset, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return pairs of the held-out writers, at most 2,000; none while pre-training."""
        if not self.has_val:
            return []
        pairs = self.pairs["val"]
        order = np.random.default_rng(self.seed).permutation(len(pairs))
        chosen = pairs.take(np.sort(order[:MOST_VAL_PAIRS]))
        return self._loader(PairDataset(self.images, chosen))

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the test pairs."""
        return self._loader(PairDataset(self.images, self.pairs["test"]))

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return all images, in order."""
        everything = range(len(self.words))
        return self._loader(ImageDataset(self.images, self.writer_numbers, everything))

    def _pages(self, places: Sequence[int]) -> list[str]:
        words = self.words
        if not all(words.pages[place] for place in places):
            raise DataError(
                f"{words.root}: positives of one page need the page of every word; CEDAR AND, CVL "
                "and IAM name it, plain folders do not: use --positives word"
            )
        return [f"{words.writers[place]}/{words.pages[place]}" for place in places]

    def _loader(self, dataset: Dataset[Any], *, shuffle: bool = False) -> DataLoader[Any]:
        return batch_loader(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            whole=True,
            num_workers=self.num_workers,
        )


def load_images(words: Words, in_channels: int) -> Tensor:
    """Return all images, uint8, shape (N, in_channels, H, W); channels are equal.

    Args:
        words: the set.
        in_channels: 1 or 3.

    Raises:
        DataError: see `papercommons.data.words.Words.load`.
    """
    return torch.from_numpy(words.load())[:, None].expand(-1, in_channels, -1, -1)
