"""Edited images of a benchmark's records, made here or by any other editor. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from papercommons.errors import DataError

from multi_edits.benchmark import Record
from multi_edits.reading import read_json

LIST = "predictions.json"  # key of a record -> its edited image, relative to the run's folder
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_IMAGES = "annotation_images"


class EditedSet(NamedTuple):
    """What one editor made of a benchmark.

    Attributes:
        label: its name in tables.
        folder: of its images.
        files: key of a record -> its edited image.
    """

    label: str
    folder: Path
    files: Mapping[str, Path]


def name_sets(given: Sequence[str]) -> dict[str, Path]:
    """Return folders by label.

    Args:
        given: folders, or ``NAME=FOLDER``; a folder's label is its name.

    Raises:
        DataError: there is none, one does not exist, or two have one label.
    """
    if not given:
        raise DataError("--edited is empty; give folders of edited images, or NAME=FOLDER")
    found: dict[str, Path] = {}
    for part in given:
        label, equals, place = part.partition("=")
        if Path(part).is_dir() or not equals:
            label, place = Path(part).resolve().name, part
        if not Path(place).is_dir():
            raise DataError(f"{place}: no such folder; --edited takes folders, or NAME=FOLDER")
        if not label or label in found:
            raise DataError(f"--edited: two folders are called {label!r}; give NAME=FOLDER")
        found[label] = Path(place)
    return found


def find_edited(label: str, folder: Path, records: Sequence[Record]) -> EditedSet:
    """Return the edited images of records in a folder.

    Args:
        label: of the set.
        folder: the --out folder of multi-edits-predict, or one with CATEGORY/ID.png, the paths of
            the benchmark's own images, or ID.png where ids are unique; .jpg and .webp will do.
        records: whose images are looked for; those without one are left out.

    Raises:
        DataError: the folder's list is broken, or it holds none of the images.
    """
    root = folder.resolve()
    if (folder / LIST).is_file():
        listed = read_json(folder / LIST)
        if not isinstance(listed, dict):
            raise DataError(f"{folder / LIST}: expected an object: record -> file")
        places = {record.key: [str(listed.get(record.key) or "")] for record in records}
    else:
        ids = Counter(record.id for record in records)
        places = {r.key: list(_places(r, unique=ids[r.id] == 1)) for r in records}
    files = {}
    for key, tried in places.items():
        paths = (folder / place for place in tried if place and "\0" not in place)
        inside = (path for path in paths if path.resolve().is_relative_to(root))
        path = next((path for path in inside if path.is_file()), None)
        if path is not None:
            files[key] = path
    if not files:
        first = records[0]
        raise DataError(
            f"{folder}: holds no edited image of the records; expected {LIST} (of "
            f"multi-edits-predict) or images such as {first.key}.png"
        )
    return EditedSet(label, folder, files)


def _places(record: Record, *, unique: bool) -> Iterator[str]:
    stems = [record.key]
    if isinstance(record.image, Path):
        parts = record.image.parts
        if _IMAGES in parts:
            inside = parts[len(parts) - parts[::-1].index(_IMAGES) :]
            stems.append(str(Path(*inside).with_suffix("")))
    if unique:
        stems.append(record.id)
    for stem in dict.fromkeys(stems):
        for root in ("", f"{_IMAGES}/", "edited/"):
            yield from (f"{root}{stem}{suffix}" for suffix in _SUFFIXES)
