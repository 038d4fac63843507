"""Pairs to ask about: lists with or without labels, and where their images lie; needs no torch.

A list is a .csv, .csv.gz, .jsonl or .parquet file with one pair per row, in the columns
``known,questioned``, ``left,right`` or ``sample1,sample2``, and ``label`` (1 same writer, 0 not) if
known.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.data.images import read_image
from papercommons.data.pairs import Pairs, check_parquet, check_rows, open_csv
from papercommons.data.words import Words, open_words
from papercommons.errors import DataError, missing_library, one_line, reason
from papercommons.files import hash_files

from vlm_hv.pairs import drawn

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = (("known", "questioned"), ("left", "right"), ("sample1", "sample2"))
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": None, "None": None}


@dataclass(frozen=True)
class Case:
    """One pair.

    Attributes:
        known: name of the known image.
        questioned: name of the questioned image.
        label: 1 if one writer wrote both, 0 if not, None if not known.
        writers: of both images; None if not known.
    """

    known: str
    questioned: str
    label: int | None = None
    writers: tuple[str, str] | None = None


@dataclass(frozen=True)
class CaseList:
    """Pairs, and the way to their images.

    Attributes:
        cases: at least one.
        read: gives the image of a name.
        digest: short hash of the list and, where the set notes them, of the images.
    """

    cases: Sequence[Case]
    read: Callable[[str], Image]
    digest: str

    def drawn(self, limit: int | None, *, seed: int = 0) -> CaseList:
        """Return at most `limit` pairs in order, see `vlm_hv.pairs.drawn`; None: all.

        Raises:
            ValueError: limit < 1.
        """
        if limit is None:
            return self
        places = drawn([case.label for case in self.cases], limit, seed=seed)
        return CaseList([self.cases[place] for place in places], self.read, self.digest)

    @property
    def labelled(self) -> bool:
        """Whether every pair has a label."""
        return all(case.label is not None for case in self.cases)


@dataclass(frozen=True)
class Images:
    """A folder of images, and where it is laid out by writer, whose they are.

    Attributes:
        root: the folder.
        words: None where writers are not told by names or sub-folders.
    """

    root: Path
    words: Words | None

    def find(self, where: str, name: str) -> tuple[str, str | None]:
        """Return an image's name as this class reads it, and its writer if known.

        Args:
            where: the place that names it, for messages.
            name: of a user's list; it may be anything.

        Raises:
            DataError: there is no such image in the folder.
        """
        if self.words is not None:
            try:
                place = self.words.index(name)
            except DataError as error:
                raise DataError(f"{where}: names what is not there: {error}") from None
            return self.words.names[place], self.words.writers[place]
        found = self.root / name
        if not found.resolve().is_relative_to(self.root.resolve()):
            raise DataError(f"{where}: {one_line(name)} lies outside {self.root}")
        if not found.is_file():
            raise DataError(f"{where}: no image {one_line(name)} in {self.root}")
        return name, None

    def read(self, name: str) -> Image:
        """Return the image of a name that `find` gave.

        Raises:
            DataError: it cannot be read.
        """
        if self.words is None:
            return read_image(self.root / name)
        from PIL import Image

        return Image.fromarray(self.words.read(self.words.index(name)))


def open_images(root: str | Path, **options: Any) -> Images:
    """Open a folder of images.

    Args:
        root: a layout of `papercommons.data.words`, or any folder.
        **options: of `papercommons.data.words.open_words`; of use only where writers are known.

    Raises:
        DataError: no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data takes the folder of the images")
    checked = {name: options.pop(name, False) for name in ("verify", "skip_bad")}
    try:
        words = open_words(root, **options)
    except DataError:
        return Images(root, None)
    return Images(root, open_words(root, **options, **checked) if any(checked.values()) else words)


def from_pairs(pairs: Pairs, words: Words) -> CaseList:
    """Return pairs of a set of words; the left image is the known one.

    Args:
        pairs: at least one.
        words: their images.

    Raises:
        DataError: there are no pairs.
    """
    if not len(pairs):
        raise DataError(f"{words.root}: no pairs to ask about")
    cases = [
        Case(words.names[k], words.names[q], int(s), (words.writers[k], words.writers[q]))
        for k, q, s in zip(pairs.left, pairs.right, pairs.same, strict=True)
    ]
    return CaseList(cases, Images(words.root, words).read, words.digest)


def read_cases(path: str | Path, images: str | Path | Images, **options: Any) -> CaseList:
    """Read a list of pairs whose images lie in one folder.

    Args:
        path: see the head of this module.
        images: folder that the names are relative to; a pack of CEDAR will do. Where it is laid
            out as `papercommons.data.words` knows it, the writers are known, too.
        **options: see `open_images`.

    Raises:
        DataError: no such file, not as documented, no pairs, an image that is missing or outside
            the folder, an image paired with itself, or labels that contradict the writers.
    """
    path = Path(path)
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path}: no pairs in it; it needs at least one row")
    if not isinstance(images, Images):
        images = open_images(images, **options)
    cases = []
    for number, (known, questioned, label) in enumerate(rows, 1):
        where = f"{path}: row {number}"
        left, left_writer = images.find(where, known)
        right, right_writer = images.find(where, questioned)
        told = left_writer is not None and right_writer is not None
        writers = (str(left_writer), str(right_writer)) if told else None
        case = Case(left, right, label, writers)
        _check(where, case)
        cases.append(case)
    more = "" if images.words is None else images.words.digest
    return CaseList(cases, images.read, f"{hash_files([path])}{more}"[:32])


def _check(where: str, case: Case) -> None:
    if case.known == case.questioned:
        raise DataError(f"{where}: {case.known} is paired with itself; remove the row")
    if case.label is None or case.writers is None:
        return
    left, right = case.writers
    if (left == right) != bool(case.label):
        raise DataError(
            f"{where}: label {case.label} does not agree with the writers {left} and {right} "
            "(1: same writer, 0: different)"
        )


_Row = tuple[str, str, int | None]


def _rows(path: Path) -> list[_Row]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; --pairs takes a list of pairs")
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        table = _csv(path)
    elif name.endswith(".jsonl"):
        table = _jsonl(path)
    elif name.endswith(".parquet"):
        table = _parquet(path)
    else:
        raise DataError(f"{path}: not a list of pairs; expected .csv, .csv.gz, .jsonl or .parquet")
    return [_row(path, number, row) for number, row in enumerate(table, 1)]


def _row(path: Path, number: int, row: dict[str, Any]) -> _Row:
    for known, questioned in COLUMNS:
        if known in row and questioned in row:
            break
    else:
        found = one_line(", ".join(map(str, row)))[:200] or "nothing"
        raise DataError(
            f"{path}: row {number}: expected the columns known,questioned or left,right or "
            f"sample1,sample2 (and label), got {found}"
        )
    names = (row[known], row[questioned])
    label = row.get("label")
    text = "" if label is None else str(int(label) if isinstance(label, bool) else label).strip()
    if text not in _LABELS:
        raise DataError(f"{path}: row {number}: label {one_line(text)!r}; expected 0, 1 or nothing")
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f"{path}: row {number}: a name is missing")
    return names[0].strip(), names[1].strip(), _LABELS[text]


def _csv(path: Path) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = []
    try:
        with open_csv(path) as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            for row in rows:
                check_rows(path, len(table))
                table += [dict(zip(header, row, strict=False))] if row else []
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable csv ({reason(error)})") from None
    if not table:
        _row(path, 1, dict.fromkeys(header, "?") | {"label": ""})  # says if the columns are wrong
    return table


def _jsonl(path: Path) -> list[dict[str, Any]]:
    table = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}: line {number}: not JSON ({reason(error)})") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number}: expected an object per line")
            table.append(row)
    return table


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise missing_library(
            f"{path}: parquet", "pyarrow", "vlm-hv[parquet]", instead="use .csv"
        ) from None
    try:
        check_parquet(path)
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except DataError:
        raise
    except Exception as error:  # pyarrow has many kinds
        raise DataError(f"{path}: not a readable parquet ({reason(error)})") from None
    return rows
