"""Lists that come with scans: manifests, and the csv files of CC-CCII and Clean-CC-CCII."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from papercommons.errors import DataError, one_line, reason

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LESION_FILES = ("lesions_slices.csv", "lesion_slices.csv")
UNZIP_FILE = "unzip_filenames.csv"
CLEANED_FILES = ("CT_cleaned_v2.csv", "CT_cleaned.csv")
MAX_TABLE_BYTES = 256 << 20
_ALIASES = {"scan": "path", "class": "label", "patient": "patient_id"}


@dataclass(frozen=True)
class ManifestRow:
    """One scan of a manifest.

    Attributes:
        path: as written, relative to the data folder or absolute.
        label: name of the class.
        patient: id, or "" if none is given.
        split: train, val, test or None.
        line: number in the file, from 1.
    """

    path: str
    label: str
    patient: str
    split: str | None
    line: int


def read_manifest(path: str | Path) -> list[ManifestRow]:
    """Return the scans of a manifest: a csv with ``path,label[,patient_id,split]``.

    The columns may stand in any order and others beside them; ``;`` and tabs divide as well. The
    splits.csv of a run is a manifest too.

    Args:
        path: the file, UTF-8.

    Raises:
        DataError: missing, broken or empty; a column, a value or some of the splits are missing; a
            path occurs twice.
    """
    rows: list[ManifestRow] = []
    lines: dict[str, int] = {}
    for line, row in _read_rows(Path(path), ("path", "label")):
        where = f"{path}: line {line}"
        if not row["path"] or not row["label"]:
            empty = "label" if row["path"] else "path"
            raise DataError(f"{where}: {empty} is empty; expected path,label[,patient_id,split]")
        split = row.get("split", "").lower()
        if split and split not in SPLIT_NAMES:
            raise DataError(f"{where}: split is {split!r}; expected train, val or test")
        first = lines.setdefault(row["path"], line)
        if first != line:
            raise DataError(f"{where}: {row['path']} stands in line {first} already; remove one")
        patient = row.get("patient_id", "")
        rows.append(ManifestRow(row["path"], row["label"], patient, SPLIT_NAMES.get(split), line))
    if not rows:
        raise DataError(f"{path}: lists no scans; expected lines path,label[,patient_id,split]")
    for name, values in (
        ("split", [row.split or "" for row in rows]),
        ("patient_id", [row.patient for row in rows]),
    ):
        if any(values) and not all(values):
            line = rows[values.index("")].line
            raise DataError(f"{path}: line {line}: {name} is empty; give all or none")
    return rows


def read_lesion_slices(root: str | Path) -> dict[str, list[str]]:
    """Return the slices that CC-CCII lists as showing lesions: scan -> names of its files.

    Args:
        root: folder with ``lesions_slices.csv`` (or ``lesion_slices.csv``); without either the
            result is empty.

    Raises:
        DataError: the file is broken.

    Example:
        ``{"CP/10/3153": ["0172.png", "0173.png"]}``
    """
    slices: dict[str, list[str]] = defaultdict(list)
    path = first_file(root, LESION_FILES)
    for _, row in _read_rows(path, ("imgpath",)) if path else ():
        image = PurePosixPath(row["imgpath"].replace("\\", "/"))
        slices[image.parent.as_posix()].append(image.name)
    return dict(slices)


def read_unzip_list(root: str | Path) -> list[str]:
    """Return the scans that CC-CCII's ``unzip_filenames.csv`` lists, as class/patient/scan.

    Args:
        root: folder of the file; without it the result is empty.

    Raises:
        DataError: the file is broken.
    """
    path = first_file(root, [UNZIP_FILE])
    columns = ("label", "patient_id", "scan_id")
    rows = _read_rows(path, columns) if path else ()
    return ["/".join(row[column] for column in columns) for _, row in rows]


def read_cleaned(root: str | Path) -> dict[str, str]:
    """Return Clean-CC-CCII's corrections: class/patient/scan -> a rule for `kept_slices`.

    Args:
        root: folder with ``CT_cleaned_v2.csv`` or ``CT_cleaned.csv``; without either the result
            is empty.

    Raises:
        DataError: the file is broken.
    """
    path = first_file(root, CLEANED_FILES)
    columns = ("cls", "pid", "scan_id", "repeat_ids", "re_order")
    return {
        f"{row['cls']}/{row['pid']}/{row['scan_id']}": f"{row['repeat_ids']}|{row['re_order']}"
        for _, row in (_read_rows(path, columns) if path else ())
    }


def kept_slices(numbers: Sequence[int], rule: str) -> list[int]:
    """Return the places of the slices that a rule of Clean-CC-CCII keeps, in their right order.

    Args:
        numbers: number in the name of each slice, in the order of the files.
        rule: "repeats|order": numbers and spans such as ``0-4;11`` to leave out, and spans such as
            ``45-141+24-44`` in their right order, or ``reverse`` for what is left; ``discard``
            keeps none.

    Example:
        >>> kept_slices([1, 2, 3, 4], "2|3-4+1-2")
        [2, 3, 0]
    """
    repeats, _, order = rule.partition("|")
    if {repeats, order} & {"discard", "no image"}:
        return []
    places = {number: place for place, number in enumerate(numbers)}
    dropped = set(_in_spans(repeats, numbers))
    wanted = _in_spans(order, numbers) if order not in ("", "reverse") else numbers
    kept = [places[number] for number in dict.fromkeys(wanted) if number not in dropped]
    return kept[::-1] if "reverse" in (repeats, order) else kept


def _in_spans(spans: str, numbers: Sequence[int]) -> list[int]:
    """Return the numbers that lie in spans such as ``45-141+24``, span by span."""
    edges = [(int(a), int(b or a)) for a, b in re.findall(r"(\d{1,9})(?:-(\d{1,9}))?", spans)]
    return [number for first, last in edges for number in numbers if first <= number <= last]


def first_file(root: str | Path, names: Iterable[str]) -> Path | None:
    """Return the first of some files that exists in a folder, or None.

    Args:
        root: the folder.
        names: of the files, in the order of preference.
    """
    return next((path for name in names if (path := Path(root) / name).is_file()), None)


def _read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Give line number and stripped values of each row that is not empty."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a csv with columns {', '.join(columns)}")
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise DataError(f"{path}: above {MAX_TABLE_BYTES >> 20} MiB, which is no list of scans")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        header = lines[0] if lines else ""
        reader = csv.reader(lines, delimiter=max(",;\t", key=header.count), strict=True)
        names = [name.strip() for name in next(reader, [])]
        names = [n if _ALIASES.get(n, n) in names else _ALIASES.get(n, n) for n in names]
        if missing := [name for name in columns if name not in names]:
            has = one_line(", ".join(names))[:200] or "nothing"
            raise DataError(f"{path}: no column {' and '.join(missing)} in its first line ({has})")
        for values in reader:
            if any(values):
                stripped = [value.strip() for value in values] + [""] * len(names)
                yield reader.line_num, dict(zip(names, stripped, strict=False))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: not a readable csv in UTF-8 ({reason(error)})") from None
