"""Batches of faces with partly known labels, under one LightningDataModule.

Chance follows from (seed, epoch, index): results do not depend on the number of workers, and a
resumed run goes on exactly. Images stay in [0, 1]; the network knows how to normalise them.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from papercommons.data.sampling import batch_loader, mix_seeds
from papercommons.errors import DataError, one_line
from papercommons.files import hash_texts
from torch.utils.data import DataLoader, Dataset

from semforge.batches import Again, Change, FaceBatch, FaceDataset
from semforge.crops import Crop, Cropper
from semforge.entries import Entry, FaceList
from semforge.frames import expand
from semforge.graph import LabelGraph, as_graph
from semforge.inference import UNKNOWN
from semforge.layouts import Layout, open_faces
from semforge.leaks import check_leaks, hold_out, shorten
from semforge.self_blending import self_blend_label

__all__ = ["FaceBatch", "FaceForgeryData"]

log = logging.getLogger("papercommons")

Places = str | Path | FaceList | Sequence[str | Path | FaceList]


class FaceForgeryData(LightningDataModule):
    """Faces for training, validation and testing; no video and nobody is in two of them.

    Pictures are checked at once; faces are cut out and videos decoded once, see
    `semforge.frames.expand`.

    Args:
        train: list file, folder (see `semforge.layouts`), list, or several of these. What says
            itself that it is for validation or testing becomes that, unless `val` or `test` is
            given.
        val: likewise, for validation: its val split if it has one and is not a `FaceList`, or all.
        test: likewise, for testing.
        graph: of the labels, see `semforge.graph.as_graph`.
        layout: of all folders, see `semforge.layouts`.
        root: folder where the paths of list files begin.
        size: S, side of the pictures in pixels.
        crop: how faces are cut out, see `semforge.crops`.
        detector: likewise.
        boxes: likewise.
        cache: folder for what is cut out; None is a temporary one.
        n_frames: taken of each video. Paper: 32.
        batch_size: pictures per step and process. Paper: 32.
        augment: share of the training pictures that are corrupted (section 3.7). Paper: 0.3.
        self_blend: share of the real training pictures that become pseudo-forgeries.
        meta: where Auto-lambda's batches come from: the ``val`` split, or ``train`` as in the
            paper's code; then training batches are mappings of ``train`` and ``meta``.
        val_fraction: share of the training videos, people and pictures held out for validation if
            there is no val split; 0 holds out none.
        seed: of the held-out split, the order and all chance.
        num_workers: processes that read.
        skip_bad: read everything first and leave out what cannot be used, with a count.
        allow_leak: warn only, if splits share videos, people or files.

    Attributes:
        splits: train, val, test -> pictures; a split may be empty.
        crop_settings: how faces are cut out, plain types.
        left_out: names of what was left out.
        facts: what was found, for reports, plain types.

    Raises:
        ValueError: an option out of range.
        DataError: see `open_faces`; nothing to use, something that cannot be used, training faces
            of one class, or splits that share something.
    """

    def __init__(
        self,
        train: Places | None = None,
        *,
        val: Places | None = None,
        test: Places | None = None,
        graph: LabelGraph | Mapping[str, Any] | str = "ffsc",
        layout: Layout = "auto",
        root: str | Path | None = None,
        size: int = 224,
        crop: Crop = "none",
        detector: str = "lbp",
        boxes: str | None = None,
        cache: str | Path | None = None,
        n_frames: int = 32,
        batch_size: int = 32,
        augment: float = 0.3,
        self_blend: float = 0.0,
        meta: Literal["val", "train"] | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        num_workers: int = 0,
        skip_bad: bool = False,
        allow_leak: bool = False,
    ) -> None:
        super().__init__()
        _check_numbers(n_frames=n_frames, batch_size=batch_size)
        _check_shares(augment=augment, self_blend=self_blend)
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
        if meta not in (None, "val", "train"):
            raise ValueError(f"meta must be val or train, got {meta!r}")
        if train is None and test is None and val is None:
            raise ValueError("give train, val or test")
        cropper = Cropper(crop, size, detector, boxes)
        graph = as_graph(graph)
        self.graph, self.size, self.batch_size, self.n_frames = graph, size, batch_size, n_frames
        self.augment, self.self_blend, self.meta = augment, self_blend, meta
        self.seed, self.num_workers = seed, num_workers
        self.blend_label = self_blend_label(graph) if self_blend else None
        self.crop_settings = cropper.settings
        self._cache = Path(tempfile.mkdtemp(prefix="semforge-") if cache is None else cache)
        if cache is None:
            weakref.finalize(self, shutil.rmtree, self._cache, ignore_errors=True)
        self.left_out: list[str] = []
        self._notes: list[str] = []

        def find(places: Places | None, split: str = "") -> FaceList:
            if places is None:
                return FaceList(())
            faces = open_faces(places, graph, layout=layout, root=root)
            own = _of_split(faces, split)
            return own if own.entries and not isinstance(places, FaceList) else faces

        lists = self._divide(find(train), find(val, "val"), find(test, "test"))
        if lists["train"].entries and not lists["val"].entries and val_fraction:
            left, held = hold_out(lists["train"].entries, val_fraction, seed=seed)
            lists["train"], lists["val"] = (_with(lists["train"], split) for split in (left, held))
        self.leaks = check_leaks({k: v.entries for k, v in lists.items()}, allow=allow_leak)
        self._videos = {name: _count_videos(one) for name, one in lists.items()}
        self.splits = {name: self._expand(one, cropper, skip_bad) for name, one in lists.items()}
        self._check_classes()
        if meta == "val" and train is not None and not self.has_val:
            raise ValueError(
                "meta val needs a val split: give val or a val_fraction, or choose meta train"
            )

    def _divide(self, train: FaceList, val: FaceList, test: FaceList) -> dict[str, FaceList]:
        """Return the entries of each split; notes and what belongs to none are noted."""
        for given in (train, val, test):
            self._notes += [note for note in given.notes if note not in self._notes]
        lists = {"train": train, "val": val, "test": test}
        if any(entry.split for entry in train.entries):
            if unsaid := len(_of_split(train, "")):
                self._notes.append(f"{train.source}: {unsaid} entries without a split are left out")
            lists |= {
                name: given if given.entries else _of_split(train, name)
                for name, given in (("val", val), ("test", test))
            }
            lists["train"] = _of_split(train, "train")
            if not lists["train"].entries:
                raise DataError(f"{train.source}: no train split: all entries say val or test")
        return lists

    def _expand(self, faces: FaceList, cropper: Cropper, skip_bad: bool) -> FaceList:
        if not faces.entries:
            return faces
        found = expand(
            faces,
            cropper,
            self._cache,
            n_frames=self.n_frames,
            decode=skip_bad,
            num_workers=self.num_workers,
        )
        self._notes += [note for note in found.notes if note not in self._notes]
        if found.faults:
            why = shorten(found.faults.values(), "; ")
            if not skip_bad:
                raise DataError(f"{len(found.faults)} of {len(faces)} cannot be used: {why}")
            log.warning("--skip-bad leaves out %d of %d: %s", len(found.faults), len(faces), why)
        self.left_out += list(found.faults)
        if not found.entries:
            raise DataError(f"{faces.source}: nothing in it can be used")
        return _with(faces, found.entries)

    def _check_classes(self) -> None:
        for name, faces in self.splits.items():
            if not faces.entries:
                continue
            fakes = int((faces.labels[:, 0] == 1).sum())
            reals = int((faces.labels[:, 0] == 0).sum())
            if fakes and reals:
                continue
            lacking = "real" if fakes else "forged"
            if name == "train" and not (reals and self.self_blend):
                raise DataError(
                    f"{one_line(faces.source)}: no {lacking} faces for training; add some"
                    + (", or make pseudo-forgeries with --self-blend" if not fakes else "")
                )
            self._notes.append(f"the {name} split has no {lacking} faces")

    @property
    def has_val(self) -> bool:
        """Whether there is a val split."""
        return len(self.splits["val"]) > 0

    @cached_property
    def data_hash(self) -> str:
        """Short hash of names, labels, sizes and splits of all pictures."""
        return hash_texts(
            repr((name, entry.name, entry.label, entry.file.stat().st_size))
            for name, faces in self.splits.items()
            for entry in faces.entries
        )

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What was found: counts of each split, notes, what was left out, leaks, hash, crop."""
        return {
            "splits": {
                name: _count(faces, self._videos[name])
                for name, faces in self.splits.items()
                if faces.entries
            },
            "notes": list(self._notes),
            "left_out": list(self.left_out),
            "leaks": dict(self.leaks),
            "data_hash": self.data_hash,
            "crop": dict(self.crop_settings),
        }

    def train_dataloader(self) -> Any:
        """Return shuffled training batches; with `meta`, mappings of ``train`` and ``meta``.

        A last, smaller batch is left out.

        Raises:
            DataError: there is no train split.
        """
        if not self.splits["train"].entries:
            raise DataError("there is no train split; give train")
        dataset = self._training(self.seed)
        train = self._loader(dataset, seed=self.seed, shuffle=True)
        if self.meta is None:
            return train
        seed = mix_seeds(self.seed, 1)
        source = (
            FaceDataset(self.splits["val"], self.size)
            if self.meta == "val"
            else self._training(seed)
        )
        meta = self._loader(Again(source, len(dataset)), seed=seed, shuffle=True)
        return CombinedLoader({"train": train, "meta": meta}, "min_size")

    def _training(self, seed: int) -> FaceDataset:
        return FaceDataset(
            self.splits["train"],
            self.size,
            augment=self.augment,
            blend=self.self_blend,
            blend_label=self.blend_label,
            seed=seed,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the val batches in order, or none."""
        return self.loader("val") if self.has_val else []

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the test batches in order, or none."""
        return self.loader("test") if self.splits["test"].entries else []

    def predict_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return what `test_dataloader` does."""
        return self.test_dataloader()

    def loader(self, split: str, *, change: Change | None = None) -> DataLoader[Any]:
        """Return the batches of a split in order, as they are.

        Args:
            split: train, val or test.
            change: what is done to each picture, uint8 (S, S, 3), with a generator of chance that
                follows from the seed and the picture's number.

        Raises:
            ValueError: the split is empty, or there is no such split.
        """
        if split not in self.splits or not self.splits[split].entries:
            raise ValueError(f"there is no {split} split")
        dataset = FaceDataset(self.splits[split], self.size, seed=self.seed, change=change)
        return self._loader(dataset, seed=self.seed)

    def _loader(
        self, dataset: Dataset[Any], *, seed: int, shuffle: bool = False
    ) -> DataLoader[Any]:
        return batch_loader(
            dataset,
            batch_size=self.batch_size,
            seed=seed,
            shuffle=shuffle,
            whole=True,
            num_workers=self.num_workers,
        )


def _with(faces: FaceList, entries: Sequence[Entry]) -> FaceList:
    return FaceList(tuple(entries), faces.source, faces.notes, faces.longer)


def _of_split(faces: FaceList, split: str) -> FaceList:
    return _with(faces, [entry for entry in faces.entries if entry.split == split])


def _count_videos(faces: FaceList) -> int:
    return len({entry.video for entry in faces.entries if entry.video})


def _count(faces: FaceList, videos: int) -> dict[str, Any]:
    roots = faces.labels[:, 0]
    return {
        "pictures": len(faces),
        "videos": videos,
        "real": int((roots == 0).sum()),
        "fake": int((roots == 1).sum()),
        "with unknown labels": int((faces.labels == UNKNOWN).any(1).sum()),
        "methods": dict(sorted(Counter(faces.methods).items())),
    }


def _check_numbers(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")


def _check_shares(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
