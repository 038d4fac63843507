"""Benchmarks of edits: PIE-Bench, PIE-Bench++ and lists of one's own in either form.

Layouts::

    FOLDER/mapping_file.json + FOLDER/annotation_images/...  PIE-Bench; FOLDER/data/... will do
    FOLDER/CONFIG/*.parquet                                  PIE-Bench++, as downloaded
    FILE.json                                                {id: record} or [record, ...]

What is wrong in a record is collected, one line each; nothing in a file is evaluated or unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from papercommons.data.defects import Defect
from papercommons.errors import DataError, nearest, reason

from multi_edits.benchmark_checks import Entry, check_entry
from multi_edits.benchmark_masks import decode_mask, encode_mask
from multi_edits.benchmark_parquet import ParquetImage, image_size, list_parquet_files, read_rows
from multi_edits.benchmark_records import CATEGORIES, EDIT_TYPES, Benchmark, Record
from multi_edits.options import DataOptions

__all__ = [
    "CATEGORIES",
    "EDIT_TYPES",
    "Benchmark",
    "Defect",
    "ParquetImage",
    "Record",
    "choose_records",
    "decode_mask",
    "encode_mask",
    "open_benchmark",
]

MAX_LIST_BYTES = 500_000_000
_LIST = "mapping_file.json"
_IMAGES = "annotation_images"


def open_benchmark(path: str | Path, *, border: bool = True, strict: bool = False) -> Benchmark:
    """Return the records of a benchmark and their defects.

    Records have the keys of PIE-Bench (image_path, original_prompt, editing_prompt,
    editing_type_id, blended_word, mask) or PIE-Bench++ (id, image_path, source_prompt,
    target_prompt, edit_action, aspect_mapping, blended_words, mask). A list of one's own may add
    ``category`` and, for images of another size than 512 x 512, ``mask_size`` [H, W].

    Args:
        path: folder or file in one of the layouts above.
        border: whether a mask's outermost pixels count as edited, as in PIE-Bench's evaluation.
        strict: refuse a benchmark with any defect.

    Raises:
        DataError: no such layout, an unreadable list, no records, or a defect if `strict`.
    """
    path = Path(path)
    records: list[Record] = []
    defects: list[Defect] = []
    seen: set[tuple[str, str]] = set()
    for entry in _entries(path):
        entry, repeated = _made_unique(entry, seen)
        record, wrong = check_entry(entry, border=border)
        records.append(record)
        if repeated:
            defects.append(Defect(record.key, "its id is another record's too", "unique ids"))
        if isinstance(record.image, ParquetImage) and record.category not in CATEGORIES:
            what = f"unknown configuration {record.category!r}"
            defects.append(Defect(record.key, what, "one of PIE-Bench's, such as 0_random_140"))
        defects += wrong
    if not records:
        raise DataError(f"{path}: holds no records")
    if strict and defects:
        raise DataError(
            f"{path}: {defects[0]} ({len(defects)} defects in all); mend them or leave out --strict"
        )
    order = sorted(range(len(records)), key=lambda k: records[k].key)
    return Benchmark(path, tuple(records[k] for k in order), tuple(defects))


def choose_records(benchmark: Benchmark, options: DataOptions) -> tuple[Record, ...]:
    """Return the records that are edited or judged: usable, of some categories, the first ones.

    Args:
        benchmark: opened.
        options: of which categories, and how many at most.

    Raises:
        DataError: no such category, or no record is left.
    """
    known = sorted({record.category for record in benchmark})
    for name in options.categories or ():
        if name not in known:
            raise DataError(
                f"--categories: {benchmark.path} has {', '.join(known)}, not {name!r}"
                f"{nearest(name, known)}"
            )
    wanted = options.categories or known
    chosen = [record for record in benchmark.usable if record.category in wanted]
    if not chosen:
        first = next((str(defect) for defect in benchmark.defects if defect.fatal), "none is there")
        raise DataError(f"{benchmark.path}: no record can be edited: {first}")
    return tuple(chosen[: options.limit])


def _entries(path: Path) -> Iterator[Entry]:
    if path.is_dir():
        for place in (path / _LIST, path / "data" / _LIST):
            if place.is_file():
                yield from _json_entries(place)
                return
        files = list_parquet_files(path)
        if not files:
            raise DataError(f"{path}: no {_LIST} and no CONFIG/*.parquet; expected one of them")
    elif not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    elif path.suffix == ".parquet":
        files = [(path.stem, path)]
    else:
        yield from _json_entries(path)
        return
    for category, file in files:
        for row, (values, size) in enumerate(read_rows(file)):
            name = str(values.get("id") or f"{row:06d}")
            yield Entry(name, category, values, ParquetImage(file, row), size)


def _json_entries(file: Path) -> Iterator[Entry]:
    folder = file.parent / _IMAGES
    root = folder if folder.is_dir() else file.parent
    for number, (name, values) in enumerate(_named_records(file), 1):
        if not isinstance(values, Mapping):
            raise DataError(f"{file}: entry {number} is {str(values)[:40]!r}, not an object")
        place = values.get("image_path")
        given = place if isinstance(place, str) else ""
        category = values.get("category")
        if not isinstance(category, str):
            category = _category_of(given, values.get("editing_type_id"))
        image, size = _find_image(root, given)
        yield Entry(name or str(values.get("id") or f"{number:06d}"), category, values, image, size)


def _named_records(file: Path) -> list[tuple[str, Any]]:
    try:
        if file.stat().st_size > MAX_LIST_BYTES:
            raise DataError(f"{file}: larger than {MAX_LIST_BYTES:,} bytes")
        listed = json.loads(file.read_text(encoding="utf-8"))
    except DataError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not readable as JSON ({reason(error)})") from error
    if isinstance(listed, dict):
        return list(listed.items())
    if isinstance(listed, list):
        return [("", values) for values in listed]
    raise DataError(f"{file}: expected an object of records by id, or a list of records")


def _category_of(image_path: str, type_id: Any) -> str:
    """Return the first folder of the image's path, or else the category of the edit's type."""
    if "/" in image_path:
        return image_path.split("/")[0]
    known = isinstance(type_id, (int, str)) and str(type_id) in {str(k) for k in EDIT_TYPES}
    return CATEGORIES[int(type_id)] if known else ""


def _find_image(root: Path, given: str) -> tuple[Path | None, tuple[int, int] | str]:
    if not given:
        return None, "names no image (image_path)"
    image = root / given
    try:
        inside = image.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, no text
        return None, f"image_path {given[:60]!r} names no file ({reason(error)})"
    if not inside:
        return None, f"image_path {given!r} leads out of {root}"
    try:
        return image, image_size(image, str(image))
    except DataError as error:
        return image, str(error)


def _made_unique(entry: Entry, seen: set[tuple[str, str]]) -> tuple[Entry, bool]:
    """Return the entry with an id that its category has not had, and whether it had to change."""
    name, number = entry.id, 1
    while (entry.category, name) in seen:
        number += 1
        name = f"{entry.id}_{number}"
    seen.add((entry.category, name))
    return replace(entry, id=name), name != entry.id
