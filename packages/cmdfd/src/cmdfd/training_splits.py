"""The splits of a run: opened or prepared, divided by people, checked for leaks, and audited."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from papercommons.errors import DataError
from papercommons.files import hash_texts

from cmdfd.audit import audit_entries
from cmdfd.entries import ClipEntry
from cmdfd.options import CropOptions, DataOptions
from cmdfd.prepared import PreparedClips
from cmdfd.preparing_lists import detector_of, open_or_prepare, preparation
from cmdfd.splits import check_leaks, split_by_identity

log = logging.getLogger("papercommons")

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Splits:
    """Clips by split.

    Attributes:
        clips: train, val, test -> clips, where there are some.
        notes: what is worth knowing.
        shared: what splits share, see `cmdfd.splits.check_leaks`.
    """

    clips: Mapping[str, PreparedClips]
    notes: tuple[str, ...] = ()
    shared: Mapping[str, int] | None = None

    @property
    def crop(self) -> Mapping[str, Any]:
        """How faces were cut, of all splits."""
        return self.clips["train"].crop

    @property
    def data_hash(self) -> str:
        """Of names, labels and lengths of all clips."""
        return hash_texts(
            f"{split} {entry.name} {entry.entire} {entry.frames}"
            for split, clips in self.clips.items()
            for entry in clips.entries
        )


def open_splits(
    data: str,
    val: str | None,
    test: str | None,
    cache: str | Path,
    *,
    size: int,
    lists: DataOptions,
    crop: CropOptions,
    val_fraction: float,
    allow_leak: bool = False,
    seed: int = 0,
    num_workers: int = 0,
) -> Splits:
    """Return the splits of a run.

    Clips that are not prepared are prepared into the cache first. Without a val split, a share of
    the training people is held out.

    Args:
        data: list, set or prepared folder; it may hold val and test splits.
        val: another one for validation.
        test: another one for testing.
        cache: folder for what is prepared.
        size: side of the faces of clips that are not prepared.
        lists: how lists are read.
        crop: how faces are cut.
        val_fraction: share of the people held out if there is no val split; 0 holds out nobody.
        allow_leak: splits may share people, genuine clips and files.
        seed: of the division.
        num_workers: processes that prepare.

    Raises:
        DataError: the data cannot be used, faces are cut in different ways, or splits share what
            they must not.
    """
    places = [place for place in (data, val, test) if place is not None]
    how = preparation(crop, detector_of(places, crop.detector), size)
    opened = {
        place: open_or_prepare(
            [place],
            cache,
            how=how,
            layout=lists.layout,
            root=lists.root,
            skip_bad=lists.skip_bad,
            num_workers=num_workers,
        )
        for place in dict.fromkeys(places)
    }
    for place, clips in opened.items():
        if clips.crop != opened[data].crop:
            raise DataError(
                f"{place}: faces cut as {dict(clips.crop)}, those of {data} as "
                f"{dict(opened[data].crop)}; prepare both in the same way"
            )
    whole = opened[data]
    found: dict[str, PreparedClips | None] = {
        "train": whole.select([e for e in whole.entries if e.split in ("train", "")]),
        "val": whole.of_split("val"),
        "test": whole.of_split("test"),
    }
    for split, other in (("val", val), ("test", test)):
        if other is not None:
            found[split] = opened[other].of_split(split) or opened[other]
    if found["train"] is None:
        raise DataError(f"{data}: no training clips; its clips are all of val or test")
    notes = []
    if found["val"] is None and val_fraction > 0:
        shares = {"train": 1 - val_fraction, "val": val_fraction}
        train = found["train"]
        divided = split_by_identity(train.entries, shares, seed=seed)
        found |= {split: train.select(divided.splits[split]) for split in shares}
        notes.append(f"no val split was given: people were held out; {divided.words}")
    splits = {split: clips for split, clips in found.items() if clips is not None}
    shared = check_leaks(
        {split: sources(clips) for split, clips in splits.items()}, allow=allow_leak
    )
    notes += [f"{pair} share people, clips or files (--allow-leak)" for pair in shared]
    return Splits(splits, tuple(notes), shared)


def sources(clips: PreparedClips) -> Sequence[ClipEntry]:
    """Return the clips with the files that they were prepared from, as far as these are known."""
    before = clips.originals()
    if before is None:
        return clips.entries
    return [
        replace(entry, video=original.video, audio=original.audio)
        for entry, original in zip(clips.entries, before, strict=True)
    ]


def metadata_rows(splits: Splits) -> list[dict[str, Any]]:
    """Return what the lengths of sound and picture of the files alone tell, of train and val.

    Args:
        splits: of the run; prepared from files whose lengths were kept.
    """
    rows = []
    for split in ("train", "val"):
        clips = splits.clips.get(split)
        originals = None if clips is None else clips.originals()
        if originals is None or len({entry.entire for entry in originals}) < 2:
            continue
        one = audit_entries(originals).overall
        rows.append(
            {
                "split": split,
                "AUC of sound minus picture": one.auc,
                "from": one.low,
                "to": one.high,
                "verdict": one.verdict,
            }
        )
    return rows


def count_rows(splits: Splits) -> list[dict[str, Any]]:
    """Return how many clips each split has, by method, and how long they are."""
    counts = {split: Counter(e.method for e in c.entries) for split, c in splits.clips.items()}
    methods = sorted({method for of in counts.values() for method in of})
    rows = [
        {"method": name} | {split: of[name] for split, of in counts.items()} for name in methods
    ]
    return [*rows, {"method": "all", **{split: len(c) for split, c in splits.clips.items()}}]
