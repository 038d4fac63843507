"""`cmdfd-prepare`: clips cut to face and voice, and a report that shows what was cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from papercommons.errors import DataError, counted, one_line
from papercommons.files import prepare_out
from papercommons.report import Result, Section, image_grid_png, write_report

from cmdfd.entries import (
    FAKE,
    FPS,
    REAL,
    VIDEO_SUFFIXES,
    ClipEntry,
    ClipList,
    as_list,
    join,
    people_in,
)
from cmdfd.layouts import open_clips
from cmdfd.options import PACKAGE, CropOptions, DataOptions
from cmdfd.prepared import is_prepared
from cmdfd.preparing_lists import Item, Report, detector_of, preparation, prepare_list

LIMITS = (
    "Faces are found by a detector of frontal faces, and the largest one is taken for the one that "
    "speaks. What was cut is shown in the report: look at it before you train or judge."
)
_SHOWN = 24
_LISTED = 20


def prepare_places(
    places: Sequence[str],
    out: str,
    size: int,
    label: Literal["real", "fake"] | None,
    num_workers: int,
    resume: bool,
    overwrite: bool,
    lists: DataOptions,
    crop: CropOptions,
) -> Result:
    """Prepare clips, write the report, and return the result.

    Args:
        places: lists, sets and folders; with a label, videos and folders of them.
        out: folder.
        size: side of the faces.
        label: of all clips, None where the places say it.
        num_workers: processes that prepare.
        resume: go on with what is there.
        overwrite: empty `out` first if it holds an earlier run.
        lists: how the places are read.
        crop: how faces are cut.

    Raises:
        DataError: see `cmdfd.preparing_lists.prepare_list`.
        ValueError: an option out of range.
    """
    for place in places:
        if is_prepared(place):
            raise DataError(f"{place}: is prepared already; the other commands take it as it is")
    clips = open_places(places, label, lists)
    detector = detector_of(places, crop.detector)
    how = preparation(crop, detector, size)
    settings = {"places": list(places), "out": out, "size": size, "label": label}
    settings["num_workers"] = num_workers
    settings |= {**asdict(lists), **asdict(crop), "detector": detector}
    free = ("skip_bad", "num_workers")
    folder = prepare_out(out, settings, resume=resume, overwrite=overwrite, may_change=free)
    report = prepare_list(clips, folder, how, num_workers=num_workers, skip_bad=lists.skip_bad)
    kept = report.kept
    result = Result(
        package=PACKAGE,
        command="cmdfd-prepare",
        title=f"{clips.source}: {len(kept):,} clips prepared, detector {detector}, {size} pixels",
        rows=rows_of(kept),
        metrics={
            "clips": len(kept),
            "left_out": len(report.faults),
            "seconds": sum(frames_of(item) for item in kept) / FPS,
            "with_several_faces": sum((item.facts["faces"] or 0) > 1 for item in kept),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=report.facts["data_hash"],
        device="cpu",
        files={"list": str(folder / "list.csv"), "originals": str(folder / "originals.csv")},
        notes=[*notes_of(report), *clips.notes],
    )
    sections = [examples(folder, kept)]
    told = [(item.entry.name, note) for item in kept for note in item.notes]
    if told:
        rows = [{"clip": name, "note": note} for name, note in told]
        sections.append(Section("Notes", rows=rows))
    if report.faults:
        sections.append(Section("Left out", rows=[{"what": fault} for fault in report.faults]))
    write_report(folder / "report.html", result, sections)
    result.save(folder)
    return result


def open_places(
    places: Sequence[str], label: Literal["real", "fake"] | None, lists: DataOptions
) -> ClipList:
    """Return the clips of lists, sets and folders; all with one label if that is given.

    Args:
        places: lists, sets and folders; with a label, videos and folders of them.
        label: of all clips, None where the places say it.
        lists: how the places are read.

    Raises:
        DataError: see `cmdfd.layouts.open_clips`; a folder without videos; a video without a label.
    """
    if label is None:
        for place in places:
            if Path(place).suffix.lower() in VIDEO_SUFFIXES:
                raise DataError(f"{place}: a video says no label; give --label real or fake")
        return open_clips(
            places, layout=lists.layout, root=lists.root, files=True, skip_bad=lists.skip_bad
        )
    return join([_labelled(Path(place), label) for place in places])


def _labelled(place: Path, label: Literal["real", "fake"]) -> ClipList:
    videos = (p for p in sorted(place.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES)
    entries = [
        ClipEntry(
            video,
            int(label == "fake"),
            video.relative_to(place if place.is_dir() else place.parent).as_posix(),
            people=people_in(str(video)),
            method=FAKE if label == "fake" else REAL,
        )
        for video in (videos if place.is_dir() else [place])
    ]
    if not entries:
        raise DataError(f"{place}: no videos in it; expected {', '.join(sorted(VIDEO_SUFFIXES))}")
    return as_list(entries, source=str(place))


def rows_of(kept: Sequence[Item]) -> list[dict[str, object]]:
    """Return what there is of each split and method: clips, seconds, faces."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in kept:
        groups.setdefault((item.entry.split, item.entry.method), []).append(item)
    return [
        {
            "split": split or "none",
            "method": method,
            "clips": len(items),
            "seconds": sum(frames_of(item) for item in items) / FPS,
            "several faces": sum((item.facts["faces"] or 0) > 1 for item in items),
            "with notes": sum(bool(item.notes) for item in items),
        }
        for (split, method), items in groups.items()
    ]


def notes_of(report: Report) -> list[str]:
    """Return what the user is told under the table."""
    kinds = Counter(note.partition(";")[0] for item in report.kept for note in item.notes)
    few = len(report.kept) <= _LISTED
    told = (f"{item.entry.name}: {note}" for item in report.kept for note in item.notes)
    notes = list(islice(told, _LISTED)) if few else [f"{n} clips: {k}" for k, n in kinds.items()]
    faults = report.faults
    more = [f"and {len(faults) - _LISTED} more, see defects.csv"] if len(faults) > _LISTED else []
    left = [f"{counted(len(faults), 'clip')} left out"] if faults else []
    return [*notes[:_LISTED], *left, *(f"left out: {f}" for f in faults[:_LISTED]), *more]


def frames_of(item: Item) -> int:
    """Return how many frames a prepared clip has."""
    assert item.row is not None
    return int(item.row["Frame_Len"])


def examples(folder: Path, kept: Sequence[Item]) -> Section:
    """Return the middle frame of some clips, each method in turn.

    Args:
        folder: of the prepared clips.
        kept: the clips.
    """
    return Section(
        "What was cut",
        figure=image_grid_png(*_grid(folder, kept), columns=8),
        caption="The middle frame of some clips",
    )


def _grid(folder: Path, kept: Sequence[Item]) -> tuple[list[np.ndarray], list[str]]:
    shown = list(islice(_in_turn(kept), _SHOWN))
    pictures = []
    for item in shown:
        assert item.row is not None
        frames = np.load(folder / item.row["Video_Path"], mmap_mode="r", allow_pickle=False)
        pictures.append(np.array(frames[len(frames) // 2]))
    names = [one_line(Path(item.entry.name).name)[-22:] for item in shown]
    captions = [f"{item.entry.method}\n{name}" for item, name in zip(shown, names, strict=True)]
    return pictures, captions


def _in_turn(kept: Sequence[Item]) -> Iterator[Item]:
    by_method: dict[str, list[Item]] = {}
    for item in kept:
        by_method.setdefault(item.entry.method, []).append(item)
    for rank in range(max(map(len, by_method.values()))):
        yield from (items[rank] for items in by_method.values() if rank < len(items))
