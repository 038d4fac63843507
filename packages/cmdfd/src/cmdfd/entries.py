"""Clips as lists and published sets name them, with what is known of each; needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from papercommons.errors import DataError, one_line

REAL, FAKE = "real", "fake"
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {"val": "val", "valid": "val", "validation": "val", "dev": "val"}
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".3gp")
)
FPS = 25.0  # of a clip as the network takes it
LEAST_FRAMES = 5  # what the 3-D convolution sees at once
MISMATCH = 0.2  # seconds by which sound and picture of a clip may differ without a note
_PERSON = re.compile(r"(?<![A-Za-z0-9])id\d{4,}")

Segments = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ClipEntry:
    """A clip. None, or an empty text, is what the list does not say.

    Attributes:
        video: file with the picture.
        entire: 0 real, 1 fake.
        name: how reports call it.
        audio: file with the sound; None where it is in `video`.
        audio_fake: the sound is forged, 0 or 1.
        video_fake: the picture is forged, 0 or 1.
        same_person: voice and face are one person's, 0 or 1.
        in_sync: the lips follow the sound, 0 or 1.
        face: who is seen.
        voice: who is heard.
        people: everybody who is in it or whose clip it was made of.
        source: the genuine clip it was made of.
        method: what made it: ``real``, a method, or ``fake`` if that is not known.
        split: train, val or test.
        segments: begin and end in seconds of the forged parts.
        frames: of the picture.
        samples: of the sound.
        fps: frames per second.
        sample_rate: samples per second.
        where: it was listed, for messages.
    """

    video: Path
    entire: int
    name: str
    audio: Path | None = None
    audio_fake: int | None = None
    video_fake: int | None = None
    same_person: int | None = None
    in_sync: int | None = None
    face: str = ""
    voice: str = ""
    people: tuple[str, ...] = ()
    source: str = ""
    method: str = ""
    split: str = ""
    segments: Segments = ()
    frames: int | None = None
    samples: int | None = None
    fps: float | None = None
    sample_rate: float | None = None
    where: str = ""

    @property
    def video_seconds(self) -> float | None:
        """How long the picture lasts, as the list has it."""
        return self.frames / self.fps if self.frames is not None and self.fps else None

    @property
    def audio_seconds(self) -> float | None:
        """How long the sound lasts, as the list has it."""
        if self.samples is None or not self.sample_rate:
            return None
        return self.samples / self.sample_rate

    @property
    def offset(self) -> float | None:
        """By how many seconds the sound is longer than the picture."""
        if self.audio_seconds is None or self.video_seconds is None:
            return None
        return self.audio_seconds - self.video_seconds

    @property
    def identities(self) -> tuple[str, ...]:
        """Everybody who is known to be in it."""
        named = (*self.people, self.face, self.voice)
        return tuple(dict.fromkeys(name for name in named if name))


@dataclass(frozen=True, eq=False)
class ClipList:
    """Clips in a fixed order.

    Attributes:
        entries: at least one.
        source: where they are from.
        notes: what is worth knowing about them.
        faults: lines that were left out, and why, one each.
    """

    entries: tuple[ClipEntry, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[ClipEntry]:
        return iter(self.entries)

    @property
    def labels(self) -> tuple[int, ...]:
        """0 real, 1 fake."""
        return tuple(entry.entire for entry in self.entries)

    def of_split(self, split: str) -> tuple[ClipEntry, ...]:
        """Return the clips of a split.

        Args:
            split: train, val, test, or empty for those without one.
        """
        return tuple(entry for entry in self.entries if entry.split == split)


def as_list(
    entries: Iterable[ClipEntry],
    *,
    source: str,
    notes: Iterable[str] = (),
    faults: Iterable[str] = (),
) -> ClipList:
    """Return clips as a list, each once.

    Two clips are the same if picture and sound are: in some sets one picture has several sounds.

    Args:
        entries: at least one.
        source: see `ClipList`.
        notes: see `ClipList`.
        faults: see `ClipList`.

    Raises:
        DataError: no clip, or one with two labels or in two splits.
    """
    kept: dict[tuple[Path, Path | None], ClipEntry] = {}
    twice = 0
    for entry in entries:
        before = kept.setdefault((entry.video, entry.audio), entry)
        twice += before is not entry
        for what, old, new in (
            ("label", before.entire, entry.entire),
            ("split", before.split or "none", entry.split or "none"),
        ):
            if old != new:
                raise DataError(
                    f"{entry.where or source}: {one_line(entry.name)} has {what} {new}, and {old} "
                    f"at {before.where or source}; keep one"
                )
    faults = tuple(faults)
    if not kept:
        why = f"; {faults[0]}" if faults else ""
        raise DataError(f"{source}: no clips that can be used{why}")
    again = [f"{source}: {twice} clips are there again and count once"] if twice else []
    return ClipList(tuple(kept.values()), source, (*notes, *again), faults)


def join(lists: Sequence[ClipList]) -> ClipList:
    """Return the clips of several lists as one.

    Args:
        lists: at least one.

    Raises:
        DataError: see `as_list`.
    """
    return as_list(
        chain.from_iterable(one.entries for one in lists),
        source=", ".join(one.source for one in lists),
        notes=chain.from_iterable(one.notes for one in lists),
        faults=chain.from_iterable(one.faults for one in lists),
    )


def people_in(text: str) -> tuple[str, ...]:
    """Return the persons that a name or path in the manner of VoxCeleb2 holds, each once.

    Args:
        text: with parts such as ``id00076``.

    Example:
        >>> people_in("wav2lip+id07434-id07445")
        ('id07434', 'id07445')
    """
    return tuple(dict.fromkeys(_PERSON.findall(text)))
