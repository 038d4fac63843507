"""Published sets of talking faces, and lists and folders of one's own (section 4).

============  =====================================================================================
list          a list file, see `cmdfd.lists`; or a folder with list.csv. The csvs of CMDFD and its
              FakeAVCeleb lists are such
folders       ROOT/real/** and ROOT/fake/** (in fake/METHOD/** the folder names the method), or
              FakeAVCeleb's four folders; or the same below ROOT/{train,val,test}
fakeavceleb   ROOT/meta_data.csv, and the clips it names below ROOT
segments      a .json list with forged parts, as LAV-DF and AV-Deepfake1M have it, beside the clips
============  =====================================================================================

The archives of FakeAVCeleb, LAV-DF and AV-Deepfake1M were not at hand: their layouts follow
descriptions and were not checked against them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from papercommons.errors import DataError, nearest, one_line, reason

from cmdfd.entries import (
    FAKE,
    REAL,
    SPLITS,
    VIDEO_SUFFIXES,
    ClipEntry,
    ClipList,
    as_list,
    join,
    people_in,
)
from cmdfd.lists import MAX_BYTES, as_split, check_segments, collect, read_lines, read_list
from cmdfd.places import Places

Layout = Literal["auto", "list", "folders", "fakeavceleb", "segments"]
LAYOUTS = get_args(Layout)

# folder: entire, audio, video
_CLASSES: dict[str, tuple[int, int | None, int | None]] = {
    "real": (0, 0, 0),
    "0_real": (0, 0, 0),
    "fake": (1, None, None),
    "1_fake": (1, None, None),
    "realvideo-realaudio": (0, 0, 0),
    "realvideo-fakeaudio": (1, 1, 0),
    "fakevideo-realaudio": (1, 0, 1),
    "fakevideo-fakeaudio": (1, 1, 1),
}
_MODIFIED = {
    "real": (0, 0),
    "audio_modified": (1, 0),
    "visual_modified": (0, 1),
    "both_modified": (1, 1),
}


def open_clips(
    places: str | Path | ClipList | Sequence[str | Path | ClipList],
    *,
    layout: Layout = "auto",
    root: str | Path | None = None,
    files: bool = True,
    skip_bad: bool = False,
) -> ClipList:
    """Return the clips of list files and folders, one after the other.

    Args:
        places: what is read; several are joined.
        layout: see the module; ``auto`` finds out.
        root: folder where the files of lists are, see `cmdfd.places.Places`.
        files: see `cmdfd.lists.read_list`.
        skip_bad: likewise.

    Raises:
        ValueError: there is no such layout.
        DataError: a place is missing, no layout fits, or what is in it is not as described.
    """
    if layout not in LAYOUTS:
        hint = nearest(str(layout), LAYOUTS) or f"; there are {', '.join(LAYOUTS)}"
        raise ValueError(f"no layout {layout!r}{hint}")
    given = [places] if isinstance(places, str | Path | ClipList) else list(places)
    if not given:
        raise ValueError("places must name at least one list or folder")
    how: dict[str, Any] = {"root": root, "files": files, "skip_bad": skip_bad}
    return join([p if isinstance(p, ClipList) else _open(Path(p), layout, how) for p in given])


def _open(place: Path, layout: Layout, how: dict[str, Any]) -> ClipList:
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; expected a list or a set of clips")
    if layout == "auto":
        layout = _guess(place)
    if layout == "list":
        return read_list(place / "list.csv" if place.is_dir() else place, **how)
    if layout == "fakeavceleb":
        return _read_fakeavceleb(place, **how)
    if layout == "segments":
        return _read_segments(place, **how)
    return as_list(_read_folders(place), source=str(place))


def _guess(place: Path) -> Layout:
    if place.is_file():
        if place.suffix.lower() == ".json":
            return "segments"
        return "fakeavceleb" if place.name == "meta_data.csv" else "list"
    if (place / "list.csv").is_file():
        return "list"
    if (place / "meta_data.csv").is_file():
        return "fakeavceleb"
    names = {folder.name.lower() for folder in _folders(place)}
    if names & set(_CLASSES) or names & set(SPLITS):
        return "folders"
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in place.iterdir()):
        raise DataError(
            f"{place}: nothing says which of its videos are real; list them in list.csv (path, "
            "label), put them into folders real and fake, or, if all are alike, run cmdfd-prepare "
            "with --label real or fake"
        )
    raise DataError(
        f"{place}: neither list.csv nor meta_data.csv nor folders real and fake in it; name a list "
        "file or a --layout"
    )


def _read_folders(root: Path) -> Iterator[ClipEntry]:
    tops = [(folder, SPLITS.get(folder.name.lower(), "")) for folder in _folders(root)]
    for top, split in [(top, split) for top, split in tops if split] or [(root, "")]:
        for folder in _folders(top):
            truth = _CLASSES.get(folder.name.lower())
            if truth is None:
                raise DataError(f"{folder}: expected folders such as real and fake")
            entire, audio, video = truth
            files = (p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
            for file in sorted(files):
                inner = file.relative_to(folder).parts
                made = inner[0] if len(inner) > 1 and audio is None else FAKE
                name = file.relative_to(root).as_posix()
                yield ClipEntry(
                    file,
                    entire,
                    name,
                    audio_fake=audio,
                    video_fake=video,
                    people=people_in(name),
                    method=made if entire else REAL,
                    split=split,
                    where=str(root),
                )


def _read_fakeavceleb(
    place: Path, *, root: str | Path | None, files: bool, skip_bad: bool
) -> ClipList:
    path = place / "meta_data.csv" if place.is_dir() else place
    lines = read_lines(path)
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise DataError(f"{path}: not readable as CSV ({reason(error)})") from None
    needed = ("source", "target1", "target2", "method", "type", "race", "gender")
    if missing := [name for name in needed if name not in header]:
        raise DataError(f"{path}: no column {' and '.join(missing)}; expected FakeAVCeleb's")
    at = {name: header.index(name) for name in needed}
    found = Places(path.parent, root, files=files)

    def rows() -> Iterator[tuple[str, Mapping[str, str]]]:
        try:
            for cells in reader:
                words = {name: cells[k].strip() for name, k in at.items() if k < len(cells)}
                rest = [cell.strip() for cell in cells[max(at.values()) + 1 :]]
                videos = (c for c in rest if Path(c).suffix.lower() in VIDEO_SUFFIXES)
                words["file"] = next(videos, "")
                words["folder"] = next((c for c in rest if c and c != words["file"]), "")
                yield f"line {reader.line_num}", words
        except csv.Error as error:
            where = f"{path}, line {reader.line_num}"
            raise DataError(f"{where}: not readable as CSV ({reason(error)})") from None

    return collect(path, rows(), lambda row: _fakeavceleb(row, found), skip_bad=skip_bad)


def _fakeavceleb(row: Mapping[str, str], places: Places) -> ClipEntry:
    truth = _CLASSES.get(row.get("type", "").lower())
    if truth is None or not row["file"]:
        raise DataError("expected a type such as RealVideo-RealAudio, and the name of a clip")
    entire, audio, video = truth
    usual = "/".join(row.get(k, "") for k in ("type", "race", "gender", "source"))
    folder = row["folder"] or usual
    name = f"{folder}/{row['file']}"
    inner = folder.partition("/")[2] if folder.lower().startswith("fakeavceleb") else folder
    file = places.find(f"{inner}/{row['file']}")
    named = [row.get(key, "") for key in ("source", "target1", "target2")]
    people = tuple(dict.fromkeys(p for text in (*named, name) for p in people_in(text)))
    return ClipEntry(
        file,
        entire,
        name,
        audio_fake=audio,
        video_fake=video,
        face="" if entire else named[0],
        voice="" if entire else named[0],
        people=people,
        method=(row.get("method") or FAKE) if entire else REAL,
    )


def _read_segments(path: Path, *, root: str | Path | None, files: bool, skip_bad: bool) -> ClipList:
    if path.is_dir():
        path = path / "metadata.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a .json list of clips")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB; split it")
    try:
        items = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({reason(error)})") from None
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a list of clips, [{{file, split, ...}}, ...]")
    places = Places(path.parent, root, files=files)
    rows = ((f"clip {number}", item) for number, item in enumerate(items, start=1))
    return collect(path, rows, lambda row: _with_segments(row, places), skip_bad=skip_bad)


def _with_segments(item: Any, places: Places) -> ClipEntry:
    if not isinstance(item, dict) or not isinstance(item.get("file"), str):
        raise DataError("expected an object with the text file")
    name = item["file"]
    audio, video = _modified(item)
    split = as_split(str(item.get("split") or ""))
    periods = item.get("fake_periods", item.get("fake_segments")) or []
    if not isinstance(periods, list) or not all(isinstance(part, list) for part in periods):
        shown = one_line(str(periods)[:60])
        raise DataError(f"forged parts: expected [[begin, end], ...], got {shown}")
    entire = int(bool(audio or video))
    original = item.get("original")
    return ClipEntry(
        _inside(name, split, places),
        entire,
        name,
        audio_fake=audio,
        video_fake=video,
        people=people_in(name),
        source=str(original or name),
        method=("audio" * audio + "+" * (audio & video) + "video" * video) if entire else REAL,
        split=split,
        segments=check_segments(periods),
        frames=_count(item, "video_frames"),
        samples=_count(item, "audio_frames"),
        fps=25.0,
        sample_rate=16_000.0,
    )


def _modified(item: Mapping[str, Any]) -> tuple[int, int]:
    """Return whether sound and picture are forged."""
    if "modify_type" in item:
        word = str(item["modify_type"])
        if word not in _MODIFIED:
            raise DataError(f"modify_type must be one of {', '.join(_MODIFIED)}, is {word[:40]!r}")
        return _MODIFIED[word]
    flags = item.get("modify_audio"), item.get("modify_video")
    if not all(isinstance(flag, bool) for flag in flags):
        raise DataError("expected modify_type, or modify_audio and modify_video: true or false")
    return int(bool(flags[0])), int(bool(flags[1]))


def _inside(name: str, split: str, places: Places) -> Path:
    """Return the file, which may be in a folder named after its split."""
    below = f"{split}/{name}"
    moved = places.files and split and not places.holds(name) and places.holds(below)
    return places.find(below if moved else name)


def _count(item: Mapping[str, Any], key: str) -> int | None:
    value = item.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{key} must be a whole number, is {one_line(str(value))[:20]}")
    return value


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
