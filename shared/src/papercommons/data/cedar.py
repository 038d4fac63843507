"""The CEDAR "AND" word images, as published and as packed in one tar; needs no torch.

The layouts are described in the documentation's page on data.
"""

from __future__ import annotations

import csv
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from papercommons.data.word_layouts import CEDAR_NAME, Listing, WordFile, by_name
from papercommons.errors import DataError, reason

SPLITS = ("seen", "unseen", "shuffled")
SIZE = 64
MAX_BYTES = 1 << 20  # of one image; the largest has 5 kB
_COLUMNS = ("file_name", "writer", "page", "sample", "status", "bytes", "sha256")
_FOLDERS = {"train": "TrainingSet", "val": "ValidationSet"}
_UNCLEANED = "X-2-All-Data"


def is_packed(root: Path) -> bool:
    """Return whether `root` looks like the packed copy."""
    return (root / "images.tar").is_file()


def is_original(root: Path) -> bool:
    """Return whether `root` looks like the published folder."""
    return any((root / f"{split}-dataset").is_dir() for split in SPLITS)


def list_packed(root: Path, *, everything: bool) -> Listing:
    """List the packed copy: ``index.csv`` and ``images.tar``, also ``_extra`` if `everything`.

    Args:
        root: the folder.
        everything: with the crops that are not the word "and".

    Raises:
        DataError: a file or column is missing, a member is missing, misnamed, too large, no plain
            file or of another size than the index says.
    """
    rows = _rows(root / "index.csv", (*_COLUMNS, *SPLITS))
    files = list(_members(root / "images.tar", rows))
    if everything:
        extra = _rows(root / "index_extra.csv", _COLUMNS)
        files += _members(root / "images_extra.tar", extra)
    else:
        files = [file for file in files if file.status == "clean"]
    kept = {file.name for file in files}
    published = {
        split: {
            part: [
                name for name, row in rows.items() if part in row[split].split("+") and name in kept
            ]
            for part in _FOLDERS
        }
        for split in SPLITS
    }
    return Listing(sorted(files, key=lambda file: file.name), published, SIZE)


def _rows(path: Path, columns: tuple[str, ...]) -> dict[str, dict[str, str]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; the packed CEDAR images need it")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise DataError(
                    f"{path}: no column {missing[0]}; expected {','.join(columns)} and got "
                    f"{','.join(reader.fieldnames or ())}"
                )
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable csv ({reason(error)}); copy it anew") from None
    named = {row["file_name"]: row for row in rows}
    if len(named) < len(rows):
        raise DataError(f"{path}: names an image twice; copy it anew")
    for name, row in named.items():
        found = CEDAR_NAME.fullmatch(name)
        if None in row.values() or found is None or found["writer"] != row["writer"]:
            raise DataError(f"{path}: row of {name} is broken or not of its writer; copy it anew")
    return named


def _members(path: Path, rows: Mapping[str, Mapping[str, str]]) -> Iterator[WordFile]:
    offsets = _offsets(path)
    for name, row in rows.items():
        if name not in offsets:
            raise DataError(f"{path}: has no {name}, which its index names; copy the pack anew")
        offset, size = offsets[name]
        if str(size) != row["bytes"]:
            raise DataError(
                f"{path}: {name} has {size} bytes, the index says {row['bytes']}; copy it anew"
            )
        writer, page, sample = by_name(CEDAR_NAME, Path(name))
        yield WordFile(name, writer, path, page, sample, row["status"], offset, size, row["sha256"])


def _offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Return offset and size of every member of an uncompressed tar, whose names are all flat."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; the packed CEDAR images need it")
    try:
        with tarfile.open(path, "r:") as archive:
            members = list(archive)
    except tarfile.TarError as error:
        raise DataError(f"{path}: not a readable tar ({reason(error)}); copy it anew") from None
    for member in members:
        if not member.isreg() or not re.fullmatch(r"[\w-][\w.-]*", member.name):
            raise DataError(f"{path}: member {member.name!r} is not a plain file of this folder")
        if member.size > MAX_BYTES:
            raise DataError(f"{path}: member {member.name} is above 1 MiB; copy it anew")
    return {member.name: (member.offset_data, member.size) for member in members}


def list_original(root: Path, *, everything: bool) -> Listing:
    """List the published folder: ``{seen,unseen,shuffled}-dataset/{TrainingSet,...}/*.png``.

    Args:
        root: the folder.
        everything: with the folders Junk and with ``X-2-All-Data`` of the older release.

    Raises:
        DataError: a part is empty, a file is misnamed, or the older release is missing.
    """
    files: dict[str, WordFile] = {}
    published: dict[str, dict[str, list[str]]] = {}
    for split in SPLITS:
        folder = root / f"{split}-dataset"
        if folder.is_dir():
            parts = {part: _files(folder / name, "clean") for part, name in _FOLDERS.items()}
            published[split] = {part: [file.name for file in parts[part]] for part in parts}
            for listed in parts.values():
                files |= {file.name: file for file in listed if file.name not in files}
    if everything:
        if not (root / _UNCLEANED).is_dir():
            raise DataError(
                f"{root}: variant all needs the older release beside it; copy the folder "
                f"ICFHR_HDL/{_UNCLEANED} of the same repository to {root / _UNCLEANED}"
            )
        more = [_files(root / _UNCLEANED / name, "extra") for name in _FOLDERS.values()]
        junk = [root / f"{split}-dataset" / "Junk" for split in published]
        more += [_files(folder, "junk") for folder in junk if folder.is_dir()]
        files = {file.name: file for listed in more for file in listed} | files
    return Listing([files[name] for name in sorted(files)], published, SIZE)


def _files(folder: Path, status: str) -> list[WordFile]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; the published CEDAR images have it")
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix != ".png" or path.name.startswith("."):
            continue
        if not CEDAR_NAME.fullmatch(path.name):
            raise DataError(f"{path}: not a name like 0001a_num1.png; rename or remove it")
        writer, page, sample = by_name(CEDAR_NAME, path)
        found.append(WordFile(path.name, writer, path, page, sample, status))
    if not found:
        raise DataError(f"{folder}: no images in it; expected names like 0001a_num1.png")
    return found


def find_pair_list(root: str | Path, split: str) -> Path | None:
    """Return the published list of test pairs of a split, None if there is none.

    Args:
        root: either layout of CEDAR "AND", or any folder.
        split: seen, unseen or shuffled.
    """
    packed = Path(root) / f"pairs_{split}_val.csv"
    original = Path(root) / f"{split}-dataset" / "dataset_seen_validation_siamese.csv"
    return next((path for path in (packed, original) if path.is_file()), None)
