"""Following faces through a clip: found in some frames, linked by overlap, smoothed between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from papercommons.faces.boxes import Face, overlap
from papercommons.faces.detection import Detector


@dataclass(frozen=True, eq=False)
class Track:
    """One face through a clip.

    Attributes:
        numbers: of the frames where it was found, int64, shape (K,), increasing, K >= 1.
        boxes: float64, shape (K, 4).
        looked: in how many frames of the clip faces were looked for.
    """

    numbers: np.ndarray
    boxes: np.ndarray
    looked: int

    @property
    def size(self) -> float:
        """Sum of the areas of all boxes: large and long-lasting tracks are large."""
        return float(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=-1).sum())

    @property
    def share(self) -> float:
        """Share of the frames looked at in which it was found, in (0, 1]."""
        return len(self.numbers) / self.looked

    def boxes_at(self, count: int, *, width: int = 5) -> np.ndarray:
        """Return the box in each frame, see `smooth_between`.

        Args:
            count: frames of the clip.
            width: of the median, in frames where the face was found; odd.

        Returns:
            float64, shape (count, 4).
        """
        return smooth_between(self.numbers, self.boxes, count, width=width)


def smooth_between(
    numbers: np.ndarray, values: np.ndarray, count: int, *, width: int = 5
) -> np.ndarray:
    """Return values for all frames: a running median of those known, then straight lines.

    The median goes first, so that one wrong find moves no frame. Before the first and after the
    last known frame the value stays.

    Args:
        numbers: of the known frames, increasing, shape (K,), K >= 1.
        values: float, shape (K, ...).
        count: frames.
        width: of the median, in known frames; odd, 1 is none.

    Returns:
        float64, shape (count, ...).

    Raises:
        ValueError: width is even or below 1.
    """
    if width < 1 or width % 2 == 0:
        raise ValueError(f"width must be odd and >= 1, got {width}")
    flat = np.asarray(values, np.float64).reshape(len(numbers), -1)
    padded = np.pad(flat, ((width // 2, width // 2), (0, 0)), mode="edge")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=0), axis=-1)
    frames = np.arange(count)
    lines = [np.interp(frames, numbers, column) for column in medians.T]
    return np.stack(lines, axis=1).reshape(count, *np.shape(values)[1:])


def track_faces(
    frames: Iterable[np.ndarray], detector: Detector, *, every: int = 8
) -> tuple[list[Track], int]:
    """Find the faces in every n-th frame, from the first, and link them to tracks.

    The last frame is looked at too if it lies more than n / 2 behind.

    Args:
        frames: uint8 images, taken one by one, e.g. `papercommons.video.frames.iter_frames` or
            `papercommons.video.clips.Clip.frames`.
        detector: see `papercommons.faces.detection`.
        every: n, >= 1.

    Returns:
        The tracks, the largest first (`Track.size`), and the number of frames.

    Raises:
        ValueError: every is below 1.
    """
    if every < 1:
        raise ValueError(f"every must be >= 1, got {every}")
    found: list[tuple[int, list[Face]]] = []
    number, frame = -1, None
    for number, frame in enumerate(frames):
        if number % every == 0:
            found.append((number, detector(frame)))
    if frame is not None and number % every > every // 2:
        found.append((number, detector(frame)))
    return link_faces(found), number + 1


def link_faces(found: Sequence[tuple[int, Sequence[Face]]], *, gap: int = 3) -> list[Track]:
    """Link faces of successive frames whose boxes overlap most, and return the tracks.

    Args:
        found: number of the frame, increasing, and its faces, also where there are none.
        gap: a track goes on over at most so many frames of `found` without its face.

    Returns:
        The tracks, the largest first (`Track.size`).
    """
    tracks: list[list[tuple[int, int, Face]]] = []  # place in found, frame's number, face
    for place, (number, faces) in enumerate(found):
        open_tracks = [track for track in tracks if place - track[-1][0] <= gap + 1]
        for track, face in _pairs(open_tracks, faces):
            track.append((place, number, face))
        linked = {id(track[-1][2]) for track in open_tracks}
        tracks += [[(place, number, face)] for face in faces if id(face) not in linked]
    return sorted((_track(track, len(found)) for track in tracks), key=lambda t: -t.size)


def _pairs(
    tracks: list[list[tuple[int, int, Face]]], faces: Sequence[Face]
) -> list[tuple[list[tuple[int, int, Face]], Face]]:
    """Pair tracks and faces, best overlap first, each at most once, above 0.2."""
    if not tracks or not faces:
        return []
    last = np.stack([track[-1][2].box for track in tracks])
    shared = overlap(last, np.stack([face.box for face in faces]))
    pairs = []
    while shared.max() > 0.2:
        row, column = map(int, np.unravel_index(shared.argmax(), shared.shape))
        pairs.append((tracks[row], faces[column]))
        shared[row], shared[:, column] = 0, 0
    return pairs


def _track(track: list[tuple[int, int, Face]], looked: int) -> Track:
    faces = [face for _, _, face in track]
    return Track(
        numbers=np.array([number for _, number, _ in track], np.int64),
        boxes=np.stack([face.box for face in faces]),
        looked=looked,
    )
