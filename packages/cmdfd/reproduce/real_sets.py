"""The clips of `real_clips`: real pictures with each other's sound, and who is judged when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from cmdfd.clips import read_clip
from cmdfd.data import ArrayClips
from cmdfd.entries import VIDEO_SUFFIXES
from cmdfd.features import SAMPLES
from cmdfd.prepared import PreparedClips
from papercommons.errors import DataError
from papercommons.files import write_csv
from papercommons.video.writing import write_clip

PIECE = 24  # frames, three of them in a clip of GRID


def write_swapped(data: Path, out: Path) -> None:
    """Write each clip of a folder with each clip's sound, all of the shortest's length, and a list.

    Raises:
        DataError: an odd number of clips, fewer than 4, or one that cannot be used.
    """
    paths = [path for path in sorted(data.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES]
    if len(paths) < 4 or len(paths) % 2:
        raise DataError(f"{data}: {len(paths)} clips; expected 4, 6 or so, of one person each")
    clips = {path.stem: read_clip(path) for path in paths}
    count = min(len(clip.frames) for clip in clips.values())
    rows = []
    for face, voice in product(clips, repeat=2):
        name, own = f"{face}-{voice}.mp4", face == voice
        sound = clips[voice].waveform[: count * SAMPLES]
        write_clip(out / name, clips[face].frames[:count], waveform=sound, overwrite=True)
        row = {"path": name, "label": int(not own), "method": "real" if own else "swap"}
        rows.append(row | {"face": face, "voice": voice})
    write_csv(out / "list.csv", rows)


def loaded(clips: PreparedClips, chosen: Sequence[int] | None = None) -> ArrayClips:
    """Return clips in memory; all, or those with some numbers, which may come twice."""
    chosen = range(len(clips)) if chosen is None else chosen
    read = [clips.read(k, 0, clips.lengths[k]) for k in chosen]
    frames, sounds = [one.frames for one in read], [one.waveform for one in read]
    return ArrayClips(frames, sounds, [clips.labels[k] for k in chosen])


def joined(first: ArrayClips, second: ArrayClips) -> ArrayClips:
    """Return the clips of both."""
    return ArrayClips(
        [*first.frames, *second.frames],
        [*first.waveforms, *second.waveforms],
        [*first.labels, *second.labels],
    )


def cut(clips: ArrayClips) -> ArrayClips:
    """Return the whole pieces of clips, one after the other."""
    places = [
        (k, start)
        for k, length in enumerate(clips.lengths)
        for start in range(0, length - PIECE + 1, PIECE)
    ]
    read = [clips.read(k, start, PIECE) for k, start in places]
    frames, sounds = [one.frames for one in read], [one.waveform for one in read]
    return ArrayClips(frames, sounds, [clips.labels[k] for k, _ in places])


def rounds(people: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """Give the ways to pair an even number of people so that everybody meets everybody once."""
    first, *rest = people
    for turn in range(len(rest)):
        ring = [first, *rest[turn:], *rest[:turn]]
        yield [(ring[k], ring[-1 - k]) for k in range(len(ring) // 2)]


def with_people(clips: PreparedClips, people: set[str]) -> list[int]:
    """Return the numbers of the clips in which nobody else is seen or heard."""
    return [k for k, entry in enumerate(clips.entries) if {entry.face, entry.voice} <= people]


def training_clips(clips: PreparedClips, judged: set[str], turns: int) -> ArrayClips:
    """Return the clips of all others, as many with their own sound as with others'.

    Args:
        clips: from `write_swapped`.
        judged: people who are left out, with their voices.
        turns: how often each swapped clip comes; real ones come more often, as they are fewer.
    """
    others = with_people(clips, {entry.face for entry in clips.entries} - judged)
    own = [k for k in others if not clips.labels[k]]
    swaps = [k for k in others if clips.labels[k]]
    return loaded(clips, turns * (own * (len(swaps) // len(own)) + swaps))
