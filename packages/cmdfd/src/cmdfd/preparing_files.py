"""One clip as files of a prepared folder, see `cmdfd.prepared`; needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from papercommons.errors import DataError
from papercommons.files import atomic_path, hash_texts, write_json

from cmdfd.corpus_files import read_phonemes
from cmdfd.entries import FPS, LEAST_FRAMES, ClipEntry
from cmdfd.lips import read_lip_features
from cmdfd.mouths import frame_classes
from cmdfd.preparation import SAMPLES, PreparedClip, prepare_clip
from cmdfd.prepared import CLASSES, FRAMES, LIPS, SOUND, read_json
from cmdfd.tracks import EVERY, DetectorName


@dataclass(frozen=True)
class Preparation:
    """How clips are cut, see `cmdfd.preparation.prepare_clip`.

    Attributes:
        detector: of faces.
        size: side of the crops.
        face: which one.
        every: frames between two looks.
        swapped: grey as the official code has it.
        partial: accept a broken file's readable part.
    """

    detector: DetectorName = "lbp"
    size: int = 112
    face: int | Literal["largest"] = "largest"
    every: int = EVERY
    swapped: bool = False
    partial: bool = False


def kept_note(place: Path, how: Preparation, entry: ClipEntry) -> dict[str, Any] | None:
    """Return what was noted when the same file was cut in the same way; None if it was not.

    Args:
        place: the clip's folder.
        how: it is cut.
        entry: as listed.
    """
    try:
        note = read_json(place / "facts.json")
    except DataError:
        return None
    there = (place / FRAMES).is_file() and (place / SOUND).is_file()
    return note if there and note.get("digest") == _digest(how, entry) else None


def make_files(place: Path, how: Preparation, entry: ClipEntry) -> dict[str, Any]:
    """Cut a clip, write its files, and return what is noted of it.

    Args:
        place: the clip's folder.
        how: it is cut.
        entry: as listed.

    Raises:
        DataError: see `cmdfd.preparation.prepare_clip`.
    """
    clip = prepare_clip(entry.video, audio=entry.audio, **asdict(how))
    shift = round(clip.facts["begin"] * FPS)
    count = len(clip.frames)
    lips = read_lip_features(entry.video, shift + count)
    if lips is not None:
        lips = lips[shift:]
        count = min(count, len(lips))
        if count < LEAST_FRAMES:
            raise DataError(
                f"{entry.video}: {count} frames have lip features beside it; expected at least "
                f"{LEAST_FRAMES}"
            )
    classes = _classes(entry, shift, count)
    arrays = {
        FRAMES: clip.frames[:count],
        SOUND: np.rint(clip.waveform[: SAMPLES * count] * 32768).clip(-32768, 32767).astype("i2"),
        LIPS: None if lips is None else lips[:count],
        CLASSES: classes,
    }
    for name, array in arrays.items():
        if array is None:
            (place / name).unlink(missing_ok=True)
        else:
            with atomic_path(place / name) as temporary:
                np.save(temporary, array, allow_pickle=False)
    note = {
        "digest": _digest(how, entry),
        "video": str(entry.video),
        "frames": count,
        "made": classes is not None,
        "facts": clip.facts,
        "boxes": _boxes(clip),
        "notes": list(clip.notes),
    }
    write_json(place / "facts.json", note)
    return note


def _boxes(clip: PreparedClip) -> list[list[float]]:
    """Return the boxes, one where all are the same."""
    boxes = clip.boxes if (clip.boxes != clip.boxes[0]).any() else clip.boxes[:1]
    return boxes.round(2).tolist()


def _classes(entry: ClipEntry, shift: int, count: int) -> np.ndarray | None:
    try:
        phonemes = read_phonemes(entry.video)
    except DataError:
        return None
    return frame_classes(phonemes, shift + count)[shift:].astype(np.uint8)


def _digest(how: Preparation, entry: ClipEntry) -> str:
    files = [entry.video, *([entry.audio] if entry.audio else [])]
    sidecars = [entry.video.with_suffix(suffix) for suffix in (".npy", ".json")]
    states = [
        f"{str(file)!a} {file.stat().st_size} {file.stat().st_mtime_ns}"
        for file in (*files, *sidecars)
        if file.is_file()
    ]
    return hash_texts([json.dumps(asdict(how)), *states])
