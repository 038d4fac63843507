"""The clips that are meant by files, folders and lists; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from papercommons.errors import DataError

from cmdfd.corpus_files import read_phonemes
from cmdfd.entries import VIDEO_SUFFIXES
from cmdfd.layouts import open_clips
from cmdfd.options import DataOptions
from cmdfd.prepared import SOUND, PreparedClips, is_prepared, open_prepared

LISTS = (".csv", ".txt", ".json")


class Source(NamedTuple):
    """A clip that is to be looked at.

    Attributes:
        path: file with the picture.
        name: how it is called.
        audio: file with the sound; None: it is in `path`.
        prepared: where it is one of prepared clips, and its number.
    """

    path: Path
    name: str
    audio: Path | None = None
    prepared: tuple[PreparedClips, int] | None = None

    @property
    def files(self) -> list[Path]:
        """All that the clip is read from."""
        if self.prepared is not None:
            return [self.path, self.path.with_name(SOUND)]
        return [self.path, *([self.audio] if self.audio else [])]


def find_sources(places: Iterable[str], options: DataOptions) -> list[Source]:
    """Return the clips, each once.

    Args:
        places: clips; folders, which are searched at any depth; lists (.csv, .txt, .json); folders
            of cmdfd-prepare.
        options: how lists are read.

    Raises:
        DataError: something is missing, a list cannot be used, or there is no clip.
    """
    found: dict[tuple[Path, Path | None], Source] = {}
    for place in map(Path, places):
        for source in _sources(place, options):
            found.setdefault((source.path.resolve(), source.audio), source)
    if not found:
        raise DataError(
            f"{', '.join(map(str, places))}: no clips there ({', '.join(sorted(VIDEO_SUFFIXES))})"
        )
    return list(found.values())


def _sources(place: Path, options: DataOptions) -> Iterable[Source]:
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; give clips, folders or lists")
    if is_prepared(place) and (place.is_dir() or place.suffix.lower() in LISTS):
        clips = open_prepared(place)
        return [
            Source(entry.video, entry.name, None, (clips, number))
            for number, entry in enumerate(clips.entries)
        ]
    if place.is_dir():
        files = sorted(p for p in place.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
        return [Source(path, str(path)) for path in files if path.is_file()]
    if place.suffix.lower() in LISTS:
        entries = open_clips(
            place, layout=options.layout, root=options.root, skip_bad=options.skip_bad
        )
        return [Source(entry.video, entry.name, entry.audio) for entry in entries]
    return [Source(place, str(place))]


def is_made(video: Path) -> bool:
    """Return whether a clip is one of cmdfd-synth: what is heard stands in a file beside it."""
    try:
        read_phonemes(video)
    except DataError:
        return False
    return True
