"""Batches of pairs of word images as a model's input tensors, under one LightningDataModule.

All images are decoded once and kept as bytes; a batch goes through the model's own processor. The
order, and which pairs are shown swapped, follow from (seed, epoch).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from papercommons.data.pairs import Pairs
from papercommons.data.sampling import batch_loader, mix_seeds
from papercommons.data.word_parts import divide_words
from papercommons.data.words import Words, open_words
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlm_hv.images import shuffled
from vlm_hv.pairs import draw_pairs
from vlm_hv.prompting import PairPrompt

MOST_VAL_PAIRS = 500
Ablation = Literal["blank", "shuffle"]


class PairBatch(NamedTuple):
    """Pairs as a model takes them.

    Attributes:
        inputs: tensors of the prompts; in training with the answers behind them.
        labels: tokens of the answers, int64, shape (B, A), -100 where there is nothing to learn;
            A = 0 outside of training.
        same: 1 for one writer, else 0, int64, shape (B,).
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    same: Tensor


class PairDataset(Dataset[PairBatch]):
    """Batches of pairs.

    Args:
        images: uint8, dark on white, shape (N, H, W).
        pairs: of places in `images`.
        prompt: makes the tensors.
        answered: append the answers, and show half of the pairs, drawn anew in each epoch, in the
            other order.
        seed: of those draws.
    """

    def __init__(
        self,
        images: np.ndarray,
        pairs: Pairs,
        prompt: PairPrompt,
        *,
        answered: bool = False,
        seed: int = 0,
    ) -> None:
        self.images, self.pairs, self.prompt = images, pairs, prompt
        self.answered, self.seed = answered, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> PairBatch:
        """Return the batch of (epoch, number of the pair) pairs."""
        some = self.pairs.take([number for _, number in items])
        same = torch.from_numpy(some.same)
        if not self.answered:
            inputs = self.prompt.encode(self.images[some.left], self.images[some.right])
            return PairBatch(inputs, torch.empty(len(same), 0, dtype=torch.int64), same)
        turned = np.array([mix_seeds(self.seed, *item) & 1 for item in items], bool)
        left, right = (
            self.images[np.where(turned, b, a)]
            for a, b in ((some.left, some.right), (some.right, some.left))
        )
        inputs, labels = self.prompt.encode_answered(left, right, some.same.tolist())
        return PairBatch(inputs, labels, same)


class PairData(LightningDataModule):
    """Pairs of word images by writer, divided, as prompts of one model.

    Args:
        data: folder, see `papercommons.data.words.open_words`; or words already opened.
        prompt: makes the tensors, with question and layout: `VLMVerifier.prompt`.
        split_by: see `papercommons.data.words.split_words`; ``auto`` is unseen for CEDAR AND, the
            folder's own where it has one, else by writer.
        variant: clean, or all with CEDAR's wrong words.
        writer_fraction: share of the training writers that are used, in (0, 1].
        val_fraction: share of those held out for threshold, calibration and the choice of
            best.ckpt.
        pairs: CSV or parquet file of training pairs instead of generated ones.
        max_per_writer: most same-writer pairs of one writer.
        max_pairs: most training pairs, drawn; None is all.
        batch_size: pairs per step and process, >= 1.
        seed: of splits, pairs and order.
        num_workers: processes that prepare batches.
        resize: fit images of other sizes into squares of this side.
        verify: compare every image with the checksum that the pack gives.
        skip_bad: leave out images that cannot be used (they are named) instead of stopping.
        allow_writer_overlap: accept writers in both training and test split.

    Attributes:
        words: the set.
        images: uint8, shape (N, H, W).
        split_by: how it is divided.
        splits: ``unlabelled`` (the whole training split), ``train``, ``val``, ``test`` -> places.
        pairs: ``train``, ``val``, ``test`` -> `Pairs`.

    Raises:
        ValueError: an option out of range.
        DataError: see `open_words`, `divide_words`.
    """

    def __init__(
        self,
        data: str | Words,
        prompt: PairPrompt,
        *,
        split_by: str = "auto",
        variant: Literal["clean", "all"] = "clean",
        writer_fraction: float = 1.0,
        val_fraction: float = 0.1,
        pairs: str | None = None,
        max_per_writer: int | None = None,
        max_pairs: int | None = None,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
        resize: int | None = None,
        verify: bool = False,
        skip_bad: bool = False,
        allow_writer_overlap: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (max_pairs is not None and max_pairs < 2):
            raise ValueError(
                f"batch_size must be >= 1 and max_pairs >= 2, got {batch_size}, {max_pairs}"
            )
        self.prompt, self.batch_size, self.seed = prompt, batch_size, seed
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
        if max_pairs is not None:
            self.pairs["train"] = draw_pairs(self.pairs["train"], max_pairs, seed=seed)
        self.images = words.load()

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled training pairs with their answers; a last, smaller batch is left out."""
        dataset = PairDataset(
            self.images, self.pairs["train"], self.prompt, answered=True, seed=self.seed
        )
        return self._loader(dataset, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return pairs of the held-out writers, at most 500."""
        pairs = draw_pairs(self.pairs["val"], MOST_VAL_PAIRS, seed=self.seed)
        return self._loader(PairDataset(self.images, pairs, self.prompt))

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test pairs."""
        return self._loader(PairDataset(self.images, self.pairs["test"], self.prompt))

    def _loader(self, dataset: PairDataset, *, shuffle: bool = False) -> DataLoader[Any]:
        return batch_loader(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            whole=True,
            num_workers=self.num_workers,
        )


def ablate_pairs(
    images: np.ndarray, pairs: Pairs, kind: Ablation, *, seed: int = 0
) -> tuple[np.ndarray, Pairs]:
    """Return images and pairs in which the pictures say nothing about the labels.

    A model that scores as well on these does not look at the pictures.

    Args:
        images: uint8, shape (N, H, W).
        pairs: of places in `images`.
        kind: ``blank``, all white; or ``shuffle``: every pair gets the pictures of another.
        seed: of the draw.

    Raises:
        ValueError: another kind.
    """
    if kind == "blank":
        return np.full_like(images, 255), pairs
    if kind != "shuffle":
        raise ValueError(f"kind must be blank or shuffle, got {kind!r}")
    other = shuffled(len(pairs), seed)
    return images, Pairs(pairs.left[other], pairs.right[other], pairs.same)
