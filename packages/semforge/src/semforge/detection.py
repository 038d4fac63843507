"""Faces in pictures and videos, each followed through its video, as the network wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from papercommons.data.images import SUFFIXES
from papercommons.errors import DataError
from papercommons.faces.boxes import Face
from papercommons.faces.tracks import link_faces
from papercommons.video.rates import spaced

from semforge.crops import Cropper, FoundFace, read_face_image
from semforge.frames import MAX_SIDE
from semforge.lists import VIDEO_SUFFIXES

LEAST_SHARE = 0.1  # of the frames of the face seen most, for a face of its own
LONG = 4  # frames of that face from which one frame alone is taken for a wrong find


@dataclass(frozen=True, eq=False)
class SeenFace:
    """One face of a file.

    Attributes:
        crops: RGB, uint8, shape (K, S, S, 3); K = 1 in a picture.
        boxes: of each, (left, top, right, bottom); None where pictures are taken whole.
        seconds: of each frame since the first of the video, shape (K,); 0 in a picture.
        pictures: number of the frame that each is from, among those looked at.
    """

    crops: np.ndarray
    boxes: list[np.ndarray | None]
    seconds: np.ndarray
    pictures: list[int]


@dataclass(frozen=True, eq=False)
class SeenFile:
    """What a file shows.

    Attributes:
        faces: the largest first; none if there is none.
        frames: pictures looked at, RGB, uint8; one for a picture.
        seconds: of each of them.
        note: what was converted, or an empty text.
    """

    faces: list[SeenFace]
    frames: Sequence[np.ndarray]
    seconds: np.ndarray
    note: str = ""


def find_files(places: Sequence[str]) -> list[Path]:
    """Return pictures and videos: those given, and all below the folders given, sorted.

    Args:
        places: files and folders.

    Raises:
        DataError: one does not exist, or a folder holds none.
    """
    found: dict[Path, None] = {}
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"{place}: no such file or folder; give pictures or videos")
        inside = list(_media(place)) if place.is_dir() else [place]
        if not inside:
            raise DataError(f"{place}: no pictures or videos in it")
        found |= dict.fromkeys(inside)
    return list(found)


def _media(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES and not hidden and path.is_file():
            yield path


def is_video(path: Path) -> bool:
    """Return whether a file is a video, by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def see(path: Path, cropper: Cropper, n_frames: int) -> SeenFile:
    """Return the faces of a picture or video.

    Args:
        path: the file.
        cropper: how faces are cut.
        n_frames: taken of a video, evenly spaced.

    Raises:
        DataError: the file cannot be read.
    """
    if not is_video(path):
        image, note = read_face_image(path)
        faces = [
            SeenFace(face.crop[None], [face.box], np.zeros(1), [0])
            for face in cropper.faces(image, str(path))
        ]
        return SeenFile(faces, [image], np.zeros(1), note)
    numbers, frames, seconds = _frames(path, cropper, n_frames)
    found = [cropper.faces(f, str(path), n) for n, f in zip(numbers, frames, strict=True)]
    return SeenFile(_followed(found, seconds), frames, seconds)


def _frames(
    path: Path, cropper: Cropper, n_frames: int
) -> tuple[list[int], Sequence[np.ndarray], np.ndarray]:
    """Return numbers, pixels and seconds of a video's frames; with boxes, of those listed."""
    from papercommons.video.frames import iter_frames, read_spaced_frames

    if cropper.crop != "boxes":
        frames, seconds = read_spaced_frames(path, n_frames, max_side=MAX_SIDE)
        return list(range(len(frames))), list(frames), seconds
    listed = cropper.listed_frames(str(path))
    wanted = {listed[place] for place in spaced(len(listed), n_frames).tolist()} if listed else {0}
    kept = []
    for number, (second, frame) in enumerate(iter_frames(path, partial=True)):
        if number in wanted:
            kept.append((number, frame, second))
        if number >= max(wanted):
            break
    if not kept:
        raise DataError(f"{path}: --boxes lists frames {min(wanted)} and up, which it has not")
    return (
        [number for number, _, _ in kept],
        [frame for _, frame, _ in kept],
        np.array([second for _, _, second in kept]),
    )


def _followed(found: Sequence[Sequence[FoundFace]], seconds: np.ndarray) -> list[SeenFace]:
    """Return the faces of a video, the largest first, each through its frames."""
    if all(face.box is None for faces in found for face in faces):
        pairs = [(number, face) for number, faces in enumerate(found) for face in faces]
        return [_seen(pairs, seconds)] if pairs else []
    of_box: dict[tuple[int, tuple[float, ...]], FoundFace] = {}
    linked = []
    for number, faces in enumerate(found):
        boxes = [np.asarray(face.box, np.float64) for face in faces]
        of_box |= {(number, tuple(b)): f for b, f in zip(boxes, faces, strict=True)}
        linked.append((number, [Face(b, f.score) for b, f in zip(boxes, faces, strict=True)]))
    tracks = link_faces(linked)
    most = max((len(track.numbers) for track in tracks), default=0)
    least = max(2 if most >= LONG else 1, LEAST_SHARE * most)
    return [
        _seen(
            [
                (int(number), of_box[int(number), tuple(box)])
                for number, box in zip(track.numbers, track.boxes, strict=True)
            ],
            seconds,
        )
        for track in tracks
        if len(track.numbers) >= least
    ]


def _seen(pairs: Sequence[tuple[int, FoundFace]], seconds: np.ndarray) -> SeenFace:
    numbers = [number for number, _ in pairs]
    return SeenFace(
        np.stack([face.crop for _, face in pairs]),
        [face.box for _, face in pairs],
        seconds[numbers],
        numbers,
    )
