"""Prepared clips on disk, read in pieces.

======================  ============================================================================
list.csv                the official columns, and Split, Method, Face, Voice, Source, Segments
clips/NAME/frames.npy   grey face crops, uint8, (T, S, S)
clips/NAME/sound.npy    16 kHz, int16, (640 T,)
clips/NAME/lips.npy     features for the official lip reader, float32, (T, 512), if there were some
clips/NAME/classes.npy  what is heard in each frame, uint8, (T,), of made clips
clips/NAME/facts.json   where it is from, and what was found in the file
originals.csv           the official columns with the lengths of the files, for `cmdfd-audit`
defects.csv              what was left out, and why
facts.json              how faces were cut; written last
======================  ============================================================================

Everything is read as data: no pickled arrays, no paths that lead out of the folder.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from papercommons.errors import DataError, reason

from cmdfd.entries import ClipEntry, join
from cmdfd.lists import read_lines, read_list
from cmdfd.preparation import SAMPLES
from cmdfd.tracks import SCALE, DetectorName

if TYPE_CHECKING:
    from cmdfd.data import AVSample

FRAMES, SOUND, LIPS, CLASSES = "frames.npy", "sound.npy", "lips.npy", "classes.npy"
ORIGINALS = "originals.csv"
MAX_JSON = 1 << 26


@dataclass(frozen=True)
class PreparedClips:
    """Clips of prepared folders; an `AVClips`.

    Args:
        entries: from `read_list` of such a folder: `ClipEntry.video` is a frames.npy.
        crop: how faces were cut, see `crop_settings`; the same for all.
        with_lips: give the features of the lips, where there are some.

    Raises:
        DataError: no clips, or one that is not prepared.
    """

    entries: tuple[ClipEntry, ...]
    crop: Mapping[str, Any]
    with_lips: bool = False

    def __post_init__(self) -> None:
        if not self.entries:
            raise DataError("no prepared clips; make some with cmdfd-prepare")
        for entry in self.entries:
            if entry.video.name != FRAMES or entry.frames is None:
                raise DataError(f"{entry.video}: not a prepared clip; run cmdfd-prepare")

    @property
    def names(self) -> list[str]:
        """Of the clips."""
        return [entry.name for entry in self.entries]

    @property
    def labels(self) -> list[int]:
        """0 real, 1 fake."""
        return [entry.entire for entry in self.entries]

    @property
    def lengths(self) -> list[int]:
        """Frames of each."""
        return [entry.frames or 0 for entry in self.entries]

    @property
    def size(self) -> int:
        """Side of the crops in pixels."""
        return int(self.crop["size"])

    def __len__(self) -> int:
        return len(self.entries)

    def of_split(self, split: str) -> PreparedClips | None:
        """Return those of a split (train, val, test, or empty for none), None if there are none."""
        return self.select([entry for entry in self.entries if entry.split == split])

    def select(self, entries: Sequence[ClipEntry]) -> PreparedClips | None:
        """Return some of the clips, None for none."""
        return replace(self, entries=tuple(entries)) if entries else None

    def giving_lips(self) -> PreparedClips:
        """Return the same clips, which also give the features of the lips.

        Raises:
            DataError: a clip has none.
        """
        for entry in self.entries:
            if not (entry.video.parent / LIPS).is_file():
                raise DataError(
                    f"{entry.name}: no features of the lips beside it, which this teacher needs; "
                    "name the front-end too: --teacher official:AUDIO,VIDEO,LIPS"
                )
        return replace(self, with_lips=True)

    def read(self, index: int, start: int, count: int) -> AVSample:
        """Return frames ``start`` to ``start + count`` of a clip, their sound, and its lips.

        Raises:
            DataError: a file is missing, broken or of another shape than listed.
        """
        from cmdfd.data import AVSample

        entry, size = self.entries[index], self.size
        folder, total, end = entry.video.parent, self.lengths[index], start + count
        frames = mapped(folder / FRAMES, "uint8", (total, size, size))
        sound = mapped(folder / SOUND, "int16", (SAMPLES * total,))
        lips = None
        if self.with_lips and (folder / LIPS).is_file():
            lips = np.array(mapped(folder / LIPS, "float32", (total, 512))[start:end])
        return AVSample(
            np.array(frames[start:end]),
            sound[SAMPLES * start : SAMPLES * end].astype(np.float32) / 32768,
            lips,
        )

    def originals(self) -> list[ClipEntry] | None:
        """Return the clips that these were made of, in their order, with the lengths of the files.

        These are what the metadata baseline looks at (`cmdfd.audit.audit_entries`): of prepared
        clips sound and picture are equally long. None where a folder has no originals.csv.

        Raises:
            DataError: one is broken.
        """
        found: dict[Path, ClipEntry] = {}
        for folder in dict.fromkeys(entry.video.parents[2] for entry in self.entries):
            if (folder / ORIGINALS).is_file():
                found |= _originals(folder)
        if not all(entry.video in found for entry in self.entries):
            return None
        return [found[entry.video] for entry in self.entries]

    def classes(self, index: int) -> np.ndarray | None:
        """Return what is heard in each frame, int64, shape (T,); None where it is not known.

        Raises:
            DataError: the file is broken.
        """
        path = self.entries[index].video.parent / CLASSES
        if not path.is_file():
            return None
        return np.array(mapped(path, "uint8", (self.lengths[index],))).astype(np.int64)


def open_prepared(places: str | Path | Sequence[str | Path]) -> PreparedClips:
    """Return the clips of prepared folders, one after the other.

    Args:
        places: folders that cmdfd-prepare wrote, or their list.csv (or another list in such a
            folder, e.g. a part of it).

    Raises:
        DataError: missing, not prepared, or cut in different ways.
    """
    given = [places] if isinstance(places, str | Path) else list(places)
    lists, crops = [], []
    for place in map(Path, given):
        if not is_prepared(place):
            raise DataError(f"{place}: not a prepared folder (facts.json, list.csv, clips/)")
        clips = read_list(place / "list.csv" if place.is_dir() else place)
        lists.append(clips)
        crops.append(read_facts(place)["crop"])
    for name, crop in zip(given, crops, strict=True):
        if crop != crops[0]:
            raise DataError(
                f"{name}: faces cut as {crop}, those of {given[0]} as {crops[0]}; prepare both in "
                "the same way"
            )
    return PreparedClips(join(lists).entries, crops[0])


def is_prepared(place: str | Path) -> bool:
    """Return whether a folder, or the folder of a list, was written by cmdfd-prepare."""
    folder = Path(place) if Path(place).is_dir() else Path(place).parent
    return (folder / "clips").is_dir() and (folder / "facts.json").is_file()


def read_facts(place: str | Path) -> dict[str, Any]:
    """Return facts.json of a prepared folder, or of the folder of a list.

    Raises:
        DataError: it is missing or broken.
    """
    folder = Path(place) if Path(place).is_dir() else Path(place).parent
    facts = read_json(folder / "facts.json")
    crop = facts.get("crop")
    if not isinstance(crop, dict) or not isinstance(crop.get("size"), int):
        raise DataError(f"{folder}/facts.json: does not say how faces were cut; prepare again")
    return facts


def _originals(folder: Path) -> dict[Path, ClipEntry]:
    listed = read_list(folder / ORIGINALS, files=False)
    rows = list(csv.DictReader(read_lines(folder / ORIGINALS)))
    if len(rows) != len(listed) or "Prepared" not in rows[0]:
        raise DataError(f"{folder / ORIGINALS}: not as cmdfd-prepare wrote it; prepare again")
    pairs = zip(rows, listed.entries, strict=True)
    return {folder.joinpath(*Path(row["Prepared"]).parts): entry for row, entry in pairs}


def crop_settings(detector: str, size: int, *, swapped: bool, made: bool = False) -> dict[str, Any]:
    """Return what a network keeps of how its faces were cut.

    Args:
        detector: see `cmdfd.preparation.prepare_clip`.
        size: likewise.
        swapped: likewise.
        made: the clips are those of a made corpus, which frames faces as lbp does.
    """
    return {
        "detector": detector,
        "size": size,
        "scale": None if detector == "none" else SCALE,
        "swapped": swapped,
        "cut_by": "lbp" if made and detector == "none" else None,
    }


def detector_for(crop: Mapping[str, Any]) -> DetectorName:
    """Return the detector that cuts whole videos as the clips of a training were cut.

    Args:
        crop: from `crop_settings`; entry ``crop`` of a saved network's config.json.

    Example:
        >>> detector_for({"detector": "none", "cut_by": "lbp"})
        'lbp'
    """
    detector: DetectorName = crop.get("cut_by") or crop.get("detector") or "lbp"
    return detector


def mapped(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a memory-mapped array that must be as described.

    Raises:
        DataError: missing, broken, of another type or shape.
    """
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run cmdfd-prepare again") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({reason(error)}); prepare it again") from None
    if array.dtype != dtype or array.shape != shape:
        raise DataError(
            f"{path}: expected {dtype} {shape}, got {array.dtype} {array.shape}; prepare it again"
        )
    return array


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file of at most 64 MiB.

    Raises:
        DataError: missing, too large or something else.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise DataError(f"{path}: larger than {MAX_JSON >> 20} MiB; prepare it again")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise DataError(f"{path}: no such file; expected a prepared folder") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable JSON ({reason(error)})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object")
    return value
