"""From lists to pictures: videos become some of their frames, and faces are cut out once.

What is cut out lies in a cache folder as PNG files of the network's size, so that no epoch decodes
or searches again. A folder's name follows from file, date and settings: what changes is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import track
from papercommons.data.images import find_images, read_image
from papercommons.errors import DataError
from papercommons.files import atomic_path, hash_files, write_json
from papercommons.video.rates import spaced

from semforge.crops import Cropper, check_header, read_face_image
from semforge.entries import Entry, FaceList
from semforge.lists import VIDEO_SUFFIXES

log = logging.getLogger("papercommons")

MAX_SIDE = 1920  # of a video's frames, in pixels
_NOTES = {"grey": "grey", "alpha": "with alpha"}


@dataclass
class Found:
    """What came of one entry.

    Attributes:
        files: pictures.
        numbers: of a video's frames, one per picture; empty for a picture.
        kinds: notes of `check_header`, one per picture looked at.
        lost: frames without a face.
        fault: why there is nothing; empty if there is.
    """

    files: list[Path] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    lost: int = 0
    fault: str = ""


@dataclass(frozen=True)
class Expansion:
    """Pictures of all entries.

    Attributes:
        entries: one per picture; those of a video follow each other.
        faults: name of an entry -> why it cannot be used.
        notes: what is worth knowing.
    """

    entries: tuple[Entry, ...]
    faults: dict[str, str]
    notes: tuple[str, ...]


def expand(
    faces: FaceList,
    cropper: Cropper,
    cache: str | Path,
    *,
    n_frames: int = 32,
    decode: bool = False,
    num_workers: int = 0,
) -> Expansion:
    """Return the pictures of all entries; what cannot be used is named, not raised.

    Args:
        faces: pictures, videos and folders of frames.
        cropper: how faces are cut out; of several in a picture the largest counts.
        cache: folder for what is cut out.
        n_frames: taken of each video, spaced evenly from the first to the last.
        decode: read pictures whole, not only their headers.
        num_workers: processes beside the main one that decode and search.
    """
    plain = [_is_plain(entry, cropper) for entry in faces.entries]
    quick = [entry for entry, is_plain in zip(faces.entries, plain, strict=True) if is_plain]
    slow = [entry for entry, is_plain in zip(faces.entries, plain, strict=True) if not is_plain]
    with ThreadPoolExecutor() as threads:
        checked = threads.map(partial(_check, n_frames, decode), quick)
        found = dict(zip(track(quick, "Checking pictures"), checked, strict=True))
    make = partial(_cut, cropper, Path(cache), n_frames, faces.longer)
    found |= dict(zip(slow, _cut_all(make, slow, num_workers), strict=True))
    entries: list[Entry] = []
    faults: dict[str, str] = {}
    for entry in faces.entries:
        one = found[entry]
        if one.fault:
            faults[entry.name] = one.fault
        numbers = one.numbers or repeat(None, len(one.files))
        for file, number in zip(one.files, numbers, strict=True):
            name = entry.name if number is None else f"{entry.name}#{number}"
            entries.append(replace(entry, file=file, name=name))
    return Expansion(tuple(entries), faults, tuple(_notes(found)))


def _notes(found: dict[Entry, Found]) -> Iterator[str]:
    kinds = Counter(kind for one in found.values() for kind in one.kinds if kind)
    for kind, count in sorted(kinds.items()):
        yield f"{count} pictures are {_NOTES[kind]} and were converted to RGB"
    if lost := [one.lost for one in found.values() if one.lost]:
        yield f"{sum(lost)} frames of {len(lost)} videos show no face and are left out"


def _is_plain(entry: Entry, cropper: Cropper) -> bool:
    """Return whether the files are used as they are."""
    return cropper.crop == "none" and entry.file.suffix.lower() not in VIDEO_SUFFIXES


def _check(n_frames: int, decode: bool, entry: Entry) -> Found:
    found = Found()
    try:
        found.files, found.numbers = _pictures(entry.file, n_frames)
        for file in found.files:
            found.kinds.append(check_header(file))
            if decode:
                read_image(file)
    except DataError as error:
        return Found(fault=str(error))
    return found


def _pictures(file: Path, n_frames: int) -> tuple[list[Path], list[int]]:
    """Return a picture; or some of a folder's, with their numbers."""
    if not file.is_dir():
        return [file], []
    frames = find_images([file])
    numbers = spaced(len(frames), n_frames).tolist()
    return [frames[number] for number in numbers], numbers


def _cut_all(make: Any, entries: Sequence[Entry], num_workers: int) -> Iterator[Found]:
    if num_workers == 0 or len(entries) < 2:
        yield from map(make, track(entries, "Cutting out faces") if entries else ())
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as processes:
        made = processes.map(make, entries, chunksize=4)
        for _, found in zip(track(entries, "Cutting out faces"), made, strict=True):
            yield found


def _cut(cropper: Cropper, cache: Path, n_frames: int, longer: bool, entry: Entry) -> Found:
    """Return what is in the cache for an entry, or put it there."""
    try:
        folder = cache / _key(entry, cropper, n_frames, longer)
        done = _read_done(folder)
        if done is None:
            done = _write(folder, entry, cropper, n_frames, longer)
    except (DataError, OSError) as error:
        return Found(fault=str(error))
    numbers = done["numbers"]
    files = [folder / f"{number:06d}.png" for number in numbers]
    is_picture = not entry.file.is_dir() and entry.file.suffix.lower() not in VIDEO_SUFFIXES
    return Found(files, [] if is_picture else numbers, done["kinds"], done["lost"])


def _key(entry: Entry, cropper: Cropper, n_frames: int, longer: bool) -> str:
    file = entry.file
    parts = sorted(file.iterdir()) if file.is_dir() else [file]
    dates = [(part.name, part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    boxes = hash_files([cropper.boxes]) if cropper.boxes else ""
    what = (str(file.resolve()), dates, cropper.settings, boxes, n_frames, longer, entry.name)
    digest = hashlib.sha256(repr(what).encode(errors="surrogatepass")).hexdigest()
    return f"{digest[:2]}/{digest[2:20]}"


def _read_done(folder: Path) -> dict[str, Any] | None:
    try:
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        numbers = [int(number) for number in done["numbers"]]
        if all((folder / f"{number:06d}.png").is_file() for number in numbers):
            return {"numbers": numbers, "kinds": list(done["kinds"]), "lost": int(done["lost"])}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write(
    folder: Path, entry: Entry, cropper: Cropper, n_frames: int, longer: bool
) -> dict[str, Any]:
    from PIL import Image

    numbers: list[int] = []
    kinds: list[str] = []
    lost = 0
    for number, image, kind in _images(entry, cropper, n_frames, longer):
        kinds.append(kind)
        found = cropper.faces(image, entry.name, number)
        if not found:
            lost += 1
            continue
        with atomic_path(folder / f"{number:06d}.png") as path:
            Image.fromarray(found[0].crop).save(path, compress_level=1)
        numbers.append(number)
    if not numbers:
        what = "no box is listed for it" if cropper.crop == "boxes" else "no face found"
        raise DataError(f"{entry.file}: {what}; leave it out or pass --skip-bad")
    done = {"numbers": numbers, "kinds": kinds, "lost": lost}
    write_json(folder / "done.json", done)
    return done


def _images(
    entry: Entry, cropper: Cropper, n_frames: int, longer: bool
) -> Iterator[tuple[int, np.ndarray, str]]:
    """Give numbers, pictures and notes."""
    file = entry.file
    if file.is_dir() or file.suffix.lower() not in VIDEO_SUFFIXES:
        files, numbers = _pictures(file, n_frames)
        for number, path in zip(numbers or [0], files, strict=True):
            yield number, *read_face_image(path)
        return
    if cropper.crop == "boxes":
        yield from _listed_frames(file, cropper.listed_frames(entry.name), n_frames)
        return
    from papercommons.video.frames import read_spaced_frames

    frames, _ = read_spaced_frames(file, n_frames, max_side=MAX_SIDE)
    if longer and len(frames) < n_frames:
        raise DataError(f"{file}: has {len(frames)} frames, fewer than {n_frames}")
    for number, frame in enumerate(frames):
        yield number, frame, ""


def _listed_frames(
    file: Path, listed: Sequence[int], n_frames: int
) -> Iterator[tuple[int, np.ndarray, str]]:
    from papercommons.video.frames import iter_frames

    wanted = (
        {listed[place] for place in spaced(len(listed), n_frames).tolist()} if listed else set()
    )
    for number, (_, frame) in enumerate(iter_frames(file, partial=True)):
        if number in wanted:
            yield number, frame, ""
        if number >= max(wanted, default=0):
            return
