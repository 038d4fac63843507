"""Lists of clips with sound: the official CSV, and plain ones (specification section 4.1).

The official CSV has the columns of `OFFICIAL`; upper and lower case do not matter, and a byte-order
mark is passed over. Split, Method, Face, Voice, Source and Segments may follow, the last as
``1.20-2.40;3-4`` in seconds; an empty cell is not known. Else who is in a clip and what made it is
read from its ID_Name and paths, as CMDFD and the FakeAVCeleb lists have them.

A plain list has lines ``path label`` or ``path split label`` with ``#`` before comments, or is a
CSV with the columns path and label (and, if wanted, those above); a label is 0 real or 1 fake.

Every line that cannot be used is a fault of one line; a list with faults is an error unless
`skip_bad` is set.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from papercommons.errors import DataError, one_line, reason
from papercommons.video.rates import whole_frames

from cmdfd.entries import (
    FAKE,
    FPS,
    LEAST_FRAMES,
    MISMATCH,
    REAL,
    SPLITS,
    ClipEntry,
    ClipList,
    Segments,
    as_list,
    people_in,
)
from cmdfd.places import Places

OFFICIAL = (
    "ID_Name",
    "Audio_Path",
    "Video_Path",
    "ENtire_Label",
    "Audio_Label",
    "Video_Label",
    "Identi_Label",
    "Sync_Label",
    "Frame_Len",
    "Audio_Len",
    "FPS",
    "AudioSamRate",
)
EXTRA = ("Split", "Method", "Face", "Voice", "Source", "Segments")
MAX_BYTES = 1 << 28  # the largest official list has 4 MB
MAX_LINES = 2_000_000
MAX_NUMBER = 1e9  # of frames, samples, and of either per second
_SHOWN = 5

Row = Mapping[str, str]


def read_list(
    path: str | Path,
    root: str | Path | None = None,
    *,
    files: bool = True,
    skip_bad: bool = False,
) -> ClipList:
    """Return the clips of a list file.

    Args:
        path: .csv or text, see the module, at most 256 MiB.
        root: folder where the files are, instead of the list's own; see `cmdfd.places.Places`.
        files: the files must exist; without, only the list is read.
        skip_bad: leave out lines that cannot be used; `ClipList.faults` has them.

    Raises:
        DataError: missing, too large, not text, a column is missing, a clip with two labels, no
            line that can be used; or, unless `skip_bad`, one that cannot be.
    """
    path = Path(path)
    places = Places(path.parent, root, files=files)
    lines = read_lines(path)
    if path.suffix.lower() != ".csv":
        return collect(path, _text_rows(lines), lambda row: _plain(row, places), skip_bad=skip_bad)
    columns, rows = _csv_rows(path, lines)
    official = {name.lower() for name in OFFICIAL}
    if "path" in columns and "label" in columns:
        return collect(path, rows, lambda row: _plain(row, places), skip_bad=skip_bad)
    if missing := [name for name in OFFICIAL if name.lower() not in columns]:
        if len(missing) == len(official):
            raise DataError(
                f"{path}: its first line names neither path and label nor the official columns "
                f"({', '.join(OFFICIAL[:3])}, ...)"
            )
        raise DataError(f"{path}: no column {' and '.join(missing)}; see the official lists")
    return collect(path, rows, lambda row: _official(row, places), skip_bad=skip_bad)


def collect(
    path: Path,
    rows: Iterable[tuple[str, Row]],
    make: Callable[[Row], ClipEntry],
    *,
    skip_bad: bool,
    notes: Sequence[str] = (),
) -> ClipList:
    """Return the clips that rows are made into, their faults counted.

    Args:
        path: of the list.
        rows: where each is, and its words.
        make: a row into a clip; raises DataError for what cannot be used.
        skip_bad: see `read_list`.
        notes: see `ClipList`.

    Raises:
        DataError: see `read_list`.
    """
    entries: list[ClipEntry] = []
    faults: list[str] = []
    for where, row in rows:
        try:
            entry = make(row)
            _check(entry)
            entries.append(replace(entry, where=where))
        except DataError as error:
            faults.append(f"{where}: {error}")
    if faults and not skip_bad:
        more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
        raise DataError(
            f"{path}: {len(faults)} of {len(faults) + len(entries)} lines cannot be used: "
            f"{'; '.join(faults[:_SHOWN])}{more}; mend them or pass --skip-bad"
        )
    return as_list(entries, source=str(path), notes=[*notes, *_notes_of(entries)], faults=faults)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, with or without a byte-order mark.

    Raises:
        DataError: it is missing, too large or no text.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a list of clips")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB; split it")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; expected a list of clips") from None
    if len(lines) > MAX_LINES:
        raise DataError(f"{path}: more than {MAX_LINES:,} lines; split it")
    return lines


def parse_segments(text: str) -> Segments:
    """Return the forged parts written in a cell.

    Args:
        text: ``begin-end`` in seconds, several with ``;`` between.

    Raises:
        DataError: it is not so, or a part is empty or begins before 0.

    Example:
        >>> parse_segments("1.2-2.4;3-4")
        ((1.2, 2.4), (3.0, 4.0))
    """
    return check_segments(part.split("-") for part in text.split(";") if part.strip())


def check_segments(parts: Iterable[Sequence[object]]) -> Segments:
    """Return pairs of begin and end in seconds, in order.

    Raises:
        DataError: something else, or a part is empty or begins before 0.
    """
    found = []
    for part in parts:
        try:
            begin, end = (float(str(edge)) for edge in part)
        except (TypeError, ValueError):
            begin = end = math.nan
        if not 0 <= begin < end < math.inf:
            raise DataError(
                f"forged part {one_line(str(part))[:40]}: expected begin < end in seconds"
            )
        found.append((begin, end))
    return tuple(sorted(found))


def text_of_segments(segments: Segments) -> str:
    """Return forged parts as `parse_segments` reads them."""
    return ";".join(f"{begin:g}-{end:g}" for begin, end in segments)


def as_split(word: str) -> str:
    """Return train, val or test, or an empty text for one.

    Raises:
        DataError: another word.
    """
    if word and word.lower() not in SPLITS:
        raise DataError(f"split must be train, val or test, is {one_line(word)!r}")
    return SPLITS.get(word.lower(), "")


def _csv_rows(path: Path, lines: Sequence[str]) -> tuple[set[str], Iterator[tuple[str, Row]]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        columns = {str(name).strip().lower() for name in reader.fieldnames or ()}
    except csv.Error as error:
        raise DataError(f"{path}: not readable as CSV ({reason(error)})") from None

    def rows() -> Iterator[tuple[str, Row]]:
        try:
            for row in reader:
                named = {str(k).strip().lower(): v for k, v in row.items() if k is not None}
                yield (
                    f"line {reader.line_num}",
                    {k: str(v or "").strip() for k, v in named.items()},
                )
        except csv.Error as error:
            where = f"{path}, line {reader.line_num}"
            raise DataError(f"{where}: not readable as CSV ({reason(error)})") from None

    return columns, rows()


def _text_rows(lines: Sequence[str]) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        rest, _, _ = line.strip().rpartition(words[-1])
        row = {"path": rest.strip(), "label": words[-1], "split": ""}
        if len(words) > 2 and words[-2].lower() in SPLITS:  # else the path has blanks in it
            row["path"] = rest.strip()[: -len(words[-2])].strip()
            row["split"] = words[-2]
        yield f"line {number}", row


def _plain(row: Row, places: Places) -> ClipEntry:
    name = row["path"]
    if not name:
        raise DataError("expected `path label`")
    entire = _label(row, "label", needed=True)
    assert entire is not None
    return ClipEntry(
        places.find(name),
        entire,
        name,
        people=people_in(name),
        face=row.get("face", ""),
        voice=row.get("voice", ""),
        source=row.get("source", ""),
        method=row.get("method") or (FAKE if entire else REAL),
        split=as_split(row.get("split", "")),
        segments=parse_segments(row.get("segments", "")),
    )


def _official(row: Row, places: Places) -> ClipEntry:
    name, video = row["id_name"], row["video_path"]
    entire = _label(row, "ENtire_Label", needed=True)
    assert entire is not None
    file = places.find(video)
    audio = row["audio_path"]
    sound = places.find(audio) if audio and audio != video else None
    people = people_in(name)
    face, voice = _pair(name, people)
    return ClipEntry(
        file,
        entire,
        name or video,
        audio=sound,
        audio_fake=_label(row, "Audio_Label"),
        video_fake=_label(row, "Video_Label"),
        same_person=_label(row, "Identi_Label"),
        in_sync=_label(row, "Sync_Label"),
        face=row.get("face") or face,
        voice=row.get("voice") or voice,
        people=tuple(dict.fromkeys((*people, *people_in(audio), *people_in(video)))),
        source=row.get("source") or _source(video),
        method=row.get("method") or _method(name, video, entire),
        split=as_split(row.get("split", "")),
        segments=parse_segments(row.get("segments", "")),
        frames=_whole(row, "Frame_Len"),
        samples=_whole(row, "Audio_Len"),
        fps=_number(row, "FPS"),
        sample_rate=_number(row, "AudioSamRate"),
    )


def _pair(name: str, people: Sequence[str]) -> tuple[str, str]:
    """Return whose face and whose voice it is, where the name says so (``method+idF-idV``)."""
    if len(people) == 1:
        return people[0], people[0]
    rest = name.partition("+")[2]
    if len(people) == 2 and rest == "-".join(people):
        return people[0], people[1]
    return (people[0], "") if people else ("", "")


def _method(name: str, video: str, entire: int) -> str:
    """Return CMDFD's ``method+...`` or FakeAVCeleb's folder, ``.../FAKE_FSGAN_C/...``."""
    if not entire:
        return REAL
    first = name.partition("+")[0]
    if "+" in name and not people_in(first):
        return first
    for folder in Path(video).parts:
        if "FAKE_" in folder:
            return folder.partition("FAKE_")[2].lower()
    return FAKE


def _source(video: str) -> str:
    """Return the genuine clip, where folders name it as in VoxCeleb2 (``.../id07200/quCElx/...``).

    A fake lies beside the clip whose picture it has.
    """
    *_, person, clip, _ = ("", "", "", *Path(video).parts)
    return f"{person}/{clip}" if people_in(person) == (person,) else ""


def _label(row: Row, column: str, *, needed: bool = False) -> int | None:
    text = row[column.lower()]
    if not text and not needed:
        return None
    if text not in ("0", "1"):
        raise DataError(f"{column} must be 0 or 1, is {one_line(text)[:20]!r}")
    return int(text)


def _number(row: Row, column: str) -> float | None:
    text = row[column.lower()]
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{column} must be a number, is {one_line(text)[:20]!r}")
    return value


def _whole(row: Row, column: str) -> int | None:
    value = _number(row, column)
    if value is not None and value != round(value):
        raise DataError(f"{column} must be a whole number, is {value:g}")
    return None if value is None else round(value)


def _check(entry: ClipEntry) -> None:
    """Raise DataError for what no clip can be; see section 4.5."""
    for name, value in (("FPS", entry.fps), ("AudioSamRate", entry.sample_rate)):
        if value is not None and value <= 0:
            raise DataError(f"{name} must be above 0, is {value:g}")
    for number in (entry.frames, entry.samples, entry.fps, entry.sample_rate):
        if number and not 1 / MAX_NUMBER <= abs(number) <= MAX_NUMBER:
            raise DataError(f"no clip has a length or rate of {str(number)[:20]}")
    seconds = entry.video_seconds
    frames = entry.frames if seconds is None else whole_frames(seconds, FPS)
    if frames is not None and frames < LEAST_FRAMES:
        raise DataError(f"{frames} frames at 25 per second; a clip has at least {LEAST_FRAMES}")
    if entry.samples is not None and entry.samples <= 0:
        raise DataError(f"{entry.samples} samples of sound; a clip must have some")
    if not entry.entire and (entry.audio_fake or entry.video_fake):
        raise DataError("is labelled real, but its sound or its picture forged")
    if not entry.entire and entry.segments:
        raise DataError("is labelled real, but has forged parts")
    if seconds is not None and entry.segments and entry.segments[-1][1] > seconds + MISMATCH:
        raise DataError(f"a forged part ends after the clip, which lasts {seconds:.2f} s")


def _notes_of(entries: Sequence[ClipEntry]) -> list[str]:
    """Return what is odd of the clips, but can be dealt with, one line each."""
    offsets = [entry.offset for entry in entries]
    counts = {
        f"sound and picture differ by more than {MISMATCH:g} s; both are cut to what they share": (
            sum(offset is not None and abs(offset) > MISMATCH for offset in offsets)
        ),
        "another rate than 25 frames per second; frames are chosen by their times": sum(
            entry.fps not in (None, FPS) for entry in entries
        ),
        "another rate than 16 kHz; the sound is resampled": sum(
            entry.sample_rate not in (None, 16_000.0) for entry in entries
        ),
    }
    return [f"{count} clips: {what}" for what, count in counts.items() if count]
