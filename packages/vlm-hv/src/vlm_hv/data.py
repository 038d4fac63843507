"""Batches of pairs of word images as a model's input tensors, under one LightningDataModule.

All images are decoded once and kept as bytes; a batch goes through the model's own processor. The
order, and which pairs are shown swapped, follow from (seed, epoch).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from papercommons.data.pairs import Pairs, make_pairs, read_pairs
from papercommons.data.sampling import EpochSampler, mix_seeds
from papercommons.data.words import (
    Words,
    check_disjoint,
    first_writers,
    hold_out_writers,
    open_words,
    split_words,
)
from papercommons.errors import DataError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlm_hv.choosing import default_split, draw_pairs, pairs_to_judge
from vlm_hv.images import shuffled
from vlm_hv.prompting import PairPrompt

log = logging.getLogger("papercommons")

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
        split: see `papercommons.data.words.split_words`; ``auto`` is unseen for CEDAR AND, the
            folder's own where it has one, else by writer.
        variant: clean, or all with CEDAR's wrong words.
        writer_fraction: share of the training writers that are used, in (0, 1].
        dev: share of those held out for threshold, calibration and the choice of best.ckpt.
        pairs: CSV or parquet file of training pairs instead of generated ones.
        max_per_writer: most same-writer pairs of one writer.
        max_pairs: most training pairs, drawn; None is all.
        batch_size: pairs per step and process, >= 1.
        seed: of splits, pairs and order.
        num_workers: processes that prepare batches.
        resize: fit images of other sizes into squares of this side.
        verify: compare every image with the checksum that the pack gives.
        skip_bad: leave out images that cannot be used (they are named) instead of stopping.
        allow_writer_overlap: accept a split with writers in common.

    Attributes:
        words: the set.
        images: uint8, shape (N, H, W).
        split: its name.
        parts: ``train``, ``dev``, ``test`` -> places.
        pairs: ``train``, ``dev``, ``test`` -> `Pairs`.

    Raises:
        ValueError: an option out of range.
        DataError: see `open_words`, `split_words`, `read_pairs`; or too few writers.
    """

    def __init__(
        self,
        data: str | Words,
        prompt: PairPrompt,
        *,
        split: str = "auto",
        variant: Literal["clean", "all"] = "clean",
        writer_fraction: float = 1.0,
        dev: float = 0.1,
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
        if not (0 < writer_fraction <= 1 and 0 < dev < 1):
            raise ValueError(
                f"writer_fraction must be in (0, 1] and dev in (0, 1): {writer_fraction}, {dev}"
            )
        self.prompt, self.batch_size, self.seed = prompt, batch_size, seed
        self.num_workers = num_workers
        words = data
        if not isinstance(words, Words):
            words = open_words(
                str(data), variant=variant, verify=verify, skip_bad=skip_bad, resize=resize
            )
        self.words = words
        self.split = default_split(words) if split == "auto" else split
        halves = split_words(words, self.split, seed=seed)
        overlapping = self.split in ("seen", "shuffled") or allow_writer_overlap
        check_disjoint(words, halves["train"], halves["test"], allow=overlapping)
        labelled = first_writers(words, halves["train"], writer_fraction)
        train, held = hold_out_writers(words, labelled, share=dev, seed=seed)
        self.parts = {"train": train, "dev": held, "test": halves["test"]}
        self.images = words.load()
        made = {
            part: make_pairs(words, self.parts[part], seed=seed, max_per_writer=max_per_writer)
            for part in ("train", "dev")
        }
        if pairs is not None:
            made["train"] = self._only_train(read_pairs(pairs, words), pairs)
        if max_pairs is not None:
            made["train"] = draw_pairs(made["train"], max_pairs, seed=seed)
        made["test"] = pairs_to_judge(words, self.split, self.parts["test"], seed=seed)
        self.pairs = made

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled training pairs with their answers; a last, smaller batch is left out."""
        dataset = PairDataset(
            self.images, self.pairs["train"], self.prompt, answered=True, seed=self.seed
        )
        return self._loader(dataset, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return pairs of the held-out writers, at most 500."""
        pairs = draw_pairs(self.pairs["dev"], MOST_VAL_PAIRS, seed=self.seed)
        return self._loader(PairDataset(self.images, pairs, self.prompt))

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test pairs."""
        return self._loader(PairDataset(self.images, self.pairs["test"], self.prompt))

    def _only_train(self, pairs: Pairs, source: str) -> Pairs:
        """Return the pairs whose images both lie in the train part; say how many do not."""
        allowed = np.zeros(len(self.words), dtype=bool)
        allowed[self.parts["train"]] = True
        kept = np.flatnonzero(allowed[pairs.left] & allowed[pairs.right])
        if not len(kept):
            raise DataError(f"{source}: no pair lies in the training part of split {self.split}")
        if len(kept) < len(pairs):
            log.warning(
                "%s: %d of %d pairs have an image outside the training part and are left out",
                source,
                len(pairs) - len(kept),
                len(pairs),
            )
        return pairs.take(kept)

    def _loader(self, dataset: PairDataset, *, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(dataset), shuffle=shuffle, seed=self.seed),
            collate_fn=_as_it_is,
            drop_last=shuffle and len(dataset) > self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
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


def _as_it_is(batch: Any) -> Any:
    return batch
