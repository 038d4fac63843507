"""Lists of clips made into prepared folders, see `cmdfd.prepared`; needs no torch.

A clip that is there already, from the same file and cut in the same way, is not made again: an
interrupted call goes on exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from papercommons.cli import track
from papercommons.errors import DataError, one_line
from papercommons.files import hash_files, hash_texts, name_outputs, write_csv, write_json

from cmdfd.entries import FPS, ClipEntry, ClipList, people_in
from cmdfd.layouts import Layout, open_clips
from cmdfd.lists import text_of_segments
from cmdfd.options import CropOptions, Detector
from cmdfd.places import shortened
from cmdfd.preparation import SAMPLE_RATE, SAMPLES
from cmdfd.prepared import (
    FRAMES,
    SOUND,
    PreparedClips,
    crop_settings,
    is_prepared,
    open_prepared,
    read_json,
)
from cmdfd.preparing_files import Preparation, kept_note, make_files
from cmdfd.tracks import DetectorName

_SHOWN = 5


class Item(NamedTuple):
    """What became of one clip.

    Attributes:
        entry: as listed.
        row: of list.csv; None if it was left out.
        original: row of originals.csv; None if it was left out.
        facts: see `cmdfd.preparation.PreparedClip`.
        notes: likewise.
        fault: why it was left out, or an empty text.
        made: what is heard in it is known.
    """

    entry: ClipEntry
    row: dict[str, Any] | None = None
    original: dict[str, Any] | None = None
    facts: dict[str, Any] = {}  # noqa: RUF012
    notes: tuple[str, ...] = ()
    fault: str = ""
    made: bool = False


@dataclass
class Report:
    """What became of a list.

    Attributes:
        items: one for each clip.
        facts: what facts.json says.
    """

    items: list[Item]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> list[Item]:
        """Those that were prepared."""
        return [item for item in self.items if item.row is not None]

    @property
    def faults(self) -> list[str]:
        """Why the others were not, a line each."""
        return [item.fault for item in self.items if item.fault]


def prepare_list(
    clips: ClipList,
    out: str | Path,
    how: Preparation,
    *,
    num_workers: int = 0,
    skip_bad: bool = False,
) -> Report:
    """Prepare clips into a folder, and return what became of each.

    Args:
        clips: whose files exist.
        out: folder, see `cmdfd.prepared`; what is there of an earlier call is kept.
        how: they are cut.
        num_workers: processes; 0 is this one.
        skip_bad: leave out clips that cannot be used; `Report.faults` has them.

    Raises:
        ValueError: num_workers is negative.
        DataError: no clip can be used; or, unless `skip_bad`, one cannot (all are looked at first).
    """
    if num_workers < 0:
        raise ValueError(f"--num-workers must be >= 0, got {num_workers}")
    folder = Path(out)
    work = partial(prepare_entry, folder, how)
    jobs = list(zip(clips.entries, folder_names(clips.entries), strict=True))
    items = list(_each(work, jobs, num_workers))
    report = Report(items)
    faults = report.faults
    if faults and (not skip_bad or not report.kept):
        shown = "; ".join(faults[:_SHOWN])
        more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
        raise DataError(
            f"{len(faults)} of {len(items)} clips cannot be used: {shown}{more}; mend them, or "
            "leave them out with --skip-bad"
        )
    write_csv(folder / "list.csv", [item.row for item in items if item.row])
    write_csv(folder / "originals.csv", [item.original for item in items if item.original])
    listed = [{"what": fault} for fault in (*clips.faults, *faults)]
    write_csv(folder / "defects.csv", listed or [{"what": "nothing was left out"}])
    made = all(item.made for item in report.kept)
    report.facts = {
        "crop": crop_settings(how.detector, how.size, swapped=how.swapped, made=made),
        "source": clips.source,
        "clips": len(report.kept),
        "left_out": len(faults),
        "data_hash": hash_files([folder / "list.csv"]),
    }
    write_json(folder / "facts.json", report.facts)
    return report


def prepare_entry(folder: Path, how: Preparation, job: tuple[ClipEntry, str]) -> Item:
    """Prepare one clip, unless it is there, and return what became of it.

    Args:
        folder: of all.
        how: it is cut.
        job: the clip, and the name of its folder.
    """
    entry, name = job
    place = folder / "clips" / name
    try:
        note = kept_note(place, how, entry) or make_files(place, how, entry)
    except DataError as error:
        where = f"{entry.where}: " if entry.where else ""
        return Item(entry, fault=one_line(f"{where}{error}"))
    facts = note["facts"]
    row = row_of(entry, name, note["frames"], begin=facts["begin"])
    original = row | {
        "Video_Path": str(entry.video.absolute()),
        "Audio_Path": str((entry.audio or entry.video).absolute()),
        "Frame_Len": float(facts["decoded_frames"]),
        "Audio_Len": round(facts["audio_seconds"] * SAMPLE_RATE),
        "FPS": round(facts["decoded_frames"] / facts["video_seconds"], 6),
        "Prepared": row["Video_Path"],
    }
    return Item(entry, row, original, facts, tuple(note["notes"]), made=note["made"])


def row_of(entry: ClipEntry, name: str, frames: int, *, begin: float = 0.0) -> dict[str, Any]:
    """Return the row of a prepared clip in the official columns and ours.

    Args:
        entry: as listed.
        name: of its folder.
        frames: T.
        begin: seconds of the picture that were cut off before the first of them.
    """
    seconds = frames / FPS
    moved = [(max(first - begin, 0.0), min(end - begin, seconds)) for first, end in entry.segments]
    kept = tuple((first, end) for first, end in moved if first < end)
    return {
        "ID_Name": entry.name,
        "Audio_Path": f"clips/{name}/{SOUND}",
        "Video_Path": f"clips/{name}/{FRAMES}",
        "ENtire_Label": entry.entire,
        "Audio_Label": entry.audio_fake,
        "Video_Label": entry.video_fake,
        "Identi_Label": entry.same_person,
        "Sync_Label": entry.in_sync,
        "Frame_Len": float(frames),
        "Audio_Len": SAMPLES * frames,
        "FPS": FPS,
        "AudioSamRate": SAMPLE_RATE,
        "Split": entry.split,
        "Method": entry.method,
        "Face": entry.face,
        "Voice": entry.voice,
        "Source": entry.source,
        "Segments": text_of_segments(kept),
    }


def folder_names(entries: Iterable[ClipEntry]) -> list[str]:
    """Return a plain, unique name for each clip, with the people that its own does not tell."""
    stems = []
    for entry in entries:
        path = PurePosixPath(entry.name)
        stem = path.stem if path.is_absolute() else str(path.parent / path.stem)
        told = people_in(stem.replace("/", "_"))
        others = [p for p in entry.people if p not in told and people_in(p) == (p,)]
        stems.append("_".join([shortened(stem).strip("/"), *others]))
    return name_outputs(stems, empty="clip")


def preparation(crop: CropOptions, detector: DetectorName, size: int) -> Preparation:
    """Return how clips are cut, from the options of a command.

    Args:
        crop: options.
        detector: see `detector_of`.
        size: side of the crops.
    """
    face: int | Literal["largest"] = "largest" if crop.face == "largest" else int(crop.face)
    return Preparation(detector, size, face, crop.every, crop.official_gray, crop.partial)


def detector_of(places: Iterable[str | Path], detector: Detector) -> DetectorName:
    """Return the detector that ``auto`` means: none for made corpora, else lbp.

    Args:
        places: what is to be prepared; prepared places do not count.
        detector: as given.

    Raises:
        DataError: ``auto``, and only some of the places are made corpora.
    """
    if detector != "auto":
        return detector
    made = {is_corpus(place) for place in places if not is_prepared(place)}
    if len(made) > 1:
        raise DataError("clips of cmdfd-synth and others together: prepare each by itself")
    return "none" if made == {True} else "lbp"


def is_corpus(place: str | Path) -> bool:
    """Return whether a folder, or that of a list, was written by cmdfd-synth."""
    folder = Path(place) if Path(place).is_dir() else Path(place).parent
    try:
        facts = read_json(folder / "facts.json")
    except DataError:
        return False
    return isinstance(facts.get("settings"), dict) and "kinds" in facts["settings"]


def open_or_prepare(
    places: Sequence[str | Path],
    cache: str | Path,
    *,
    how: Preparation,
    layout: Layout = "auto",
    root: str | Path | None = None,
    skip_bad: bool = False,
    num_workers: int = 0,
) -> PreparedClips:
    """Return clips of prepared folders, and of others after they were prepared.

    Args:
        places: prepared folders or lists, or raw ones, see `cmdfd.layouts.open_clips`.
        cache: folder where raw ones are prepared; what is there already is kept.
        how: raw ones are cut.
        layout: of raw ones.
        root: of raw lists.
        skip_bad: leave out what cannot be used.
        num_workers: processes that prepare.

    Raises:
        DataError: see `prepare_list` and `cmdfd.prepared.open_prepared`.
    """
    folders: list[Path] = []
    for place in map(Path, places):
        if is_prepared(place):
            folders.append(place)
            continue
        clips = open_clips(place, layout=layout, root=root, skip_bad=skip_bad)
        folder = Path(cache) / hash_texts([str(place.resolve()), json.dumps(asdict(how))])
        prepare_list(clips, folder, how, num_workers=num_workers, skip_bad=skip_bad)
        folders.append(folder)
    return open_prepared(folders)


def _each(
    work: partial[Item], jobs: Sequence[tuple[ClipEntry, str]], num_workers: int
) -> Iterable[Item]:
    if not num_workers:
        yield from map(work, track(jobs, "preparing clips"))
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        for _, item in zip(track(jobs, "preparing clips"), pool.map(work, jobs), strict=True):
            yield item
