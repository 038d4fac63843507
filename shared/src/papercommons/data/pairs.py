"""Pairs of word images, of one writer or of two: made, read and written; needs no torch."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from papercommons.data.words import Words
from papercommons.errors import DataError, missing_library, one_line, reason
from papercommons.files import atomic_path

log = logging.getLogger("papercommons")

MAX_BYTES = 1 << 27  # of a list, unpacked
MAX_ROWS = 2_000_000
COLUMNS = (("left", "right", "label"), ("sample1", "sample2", "label"))
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images.

    Attributes:
        left: indices of the first images, int64, shape (P,).
        right: indices of the second images, int64, shape (P,).
        same: 1 if one writer wrote both, else 0, int64, shape (P,).
    """

    left: np.ndarray
    right: np.ndarray
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.same)

    def take(self, indices: Sequence[int] | np.ndarray) -> Pairs:
        """Return the pairs at `indices` (numbers or a mask), in that order."""
        return Pairs(self.left[indices], self.right[indices], self.same[indices])


def make_pairs(
    words: Words,
    indices: Sequence[int],
    *,
    seed: int = 0,
    max_per_writer: int | None = None,
    drop_duplicates: bool = True,
) -> Pairs:
    """Return all pairs of one writer, and then as many of two writers.

    As the authors' repository makes them: the first image of each pair of one writer is also paired
    with a random image of another writer. So both kinds are equally many, writers with many images
    count most, and a pair of two writers may come twice.

    Args:
        words: the images.
        indices: which take part.
        seed: of the draws.
        max_per_writer: keep this many random pairs of one writer of each writer; None keeps all.
        drop_duplicates: leave out images whose content is not alone (`Words.duplicates`).

    Raises:
        DataError: there is only one writer, or no writer with two images.
        ValueError: max_per_writer < 1.
    """
    if max_per_writer is not None and max_per_writer < 1:
        raise ValueError(f"max_per_writer must be >= 1, got {max_per_writer}")
    dropped = set(words.duplicates()) if drop_duplicates else set()
    chosen = sorted({int(index) for index in indices} - dropped, key=lambda i: words.files[i].name)
    members = np.array(sorted(chosen, key=lambda i: words.writers[i]), np.int64)
    writers, start, count = np.unique(
        np.array([words.writers[i] for i in members]), return_index=True, return_counts=True
    )
    if len(writers) < 2 or count.max() < 2:
        raise DataError(
            f"{words.root}: {len(members)} images by {len(writers)} writers make no pairs of one "
            "writer and of two; add writers with two images or more"
        )
    if single := int((count == 1).sum()):
        log.warning("%d of %d writers have one image only: no pair of one", single, len(writers))
    random = np.random.default_rng(seed)
    left, right = _within(start, count, random, max_per_writer)
    block = np.searchsorted(start, left, side="right") - 1
    other = random.integers(0, len(members) - count[block])
    other += np.where(other >= start[block], count[block], 0)  # past the writer's own images
    same = np.repeat(np.array([1, 0], np.int64), len(left))
    return Pairs(members[np.tile(left, 2)], members[np.concatenate([right, other])], same)


def _within(
    start: np.ndarray, count: np.ndarray, random: np.random.Generator, most: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of both images of each pair inside the blocks start, ..., start + count."""
    blocks = []
    for first, size in zip(start, count, strict=True):
        pairs = first + np.stack(np.triu_indices(size, 1))
        if most is not None and pairs.shape[1] > most:
            pairs = pairs[:, np.sort(random.permutation(pairs.shape[1])[:most])]
        blocks.append(pairs)
    left, right = np.concatenate(blocks, axis=1)
    return left, right


def read_pairs(path: str | Path, words: Words, *, drop_duplicates: bool = True) -> Pairs:
    """Read a list of pairs, with columns left,right,label or sample1,sample2,label.

    Args:
        path: .csv, .csv.gz or .parquet; other columns are passed over.
        words: the images it names.
        drop_duplicates: leave out pairs with an image whose content is not alone (logged).

    Raises:
        DataError: missing, broken, without a column, empty, an image that is not in `words`, paired
            with itself, a label that is not 0 or 1 or does not agree with the writers.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a .csv, .csv.gz or .parquet of pairs")
    left_names, right_names, labels = _reader(path)(path)
    if not labels:
        raise DataError(f"{path}: holds no pairs; give at least one")
    left = np.array([_find(path, words, name) for name in left_names], np.int64)
    right = np.array([_find(path, words, name) for name in right_names], np.int64)
    same = np.array([_label(path, row, text) for row, text in enumerate(labels)], np.int64)
    _check(path, words, Pairs(left, right, same))
    if drop_duplicates:
        dropped = words.duplicates()
        keep = ~(np.isin(left, dropped) | np.isin(right, dropped))
        if not keep.all():
            log.warning("%s: %d pairs hold an image that is there twice", path, (~keep).sum())
        return Pairs(left[keep], right[keep], same[keep])
    return Pairs(left, right, same)


_Table = tuple[list[str], list[str], list[str]]


def _reader(path: Path) -> Callable[[Path], _Table]:
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _read_csv
    if name.endswith(".parquet"):
        return _read_parquet
    raise DataError(f"{path}: not a list of pairs; expected .csv, .csv.gz or .parquet")


def open_csv(path: Path) -> io.TextIOWrapper:
    """Return a .csv or .csv.gz, unpacked in memory, for `csv.reader`.

    Args:
        path: a file that exists.

    Raises:
        DataError: it cannot be read, or has more than 128 MiB.
    """
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a readable csv ({reason(error)})") from None
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: has more than {MAX_BYTES >> 20} MiB; split it")
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")


def check_rows(path: Path, rows: int) -> None:
    """Raise DataError if a list has more than two million rows.

    Args:
        path: of the list, for the message.
        rows: that it has.
    """
    if rows > MAX_ROWS:
        raise DataError(f"{path}: has more than {MAX_ROWS:,} rows; split it")


def check_parquet(path: Path) -> None:
    """Raise DataError unless a parquet file states that it fits into memory as a list of pairs.

    Args:
        path: a file that exists.
    """
    stated = _pyarrow(path).read_metadata(path)
    check_rows(path, stated.num_rows)
    size = sum(stated.row_group(k).total_byte_size for k in range(stated.num_row_groups))
    if size > MAX_BYTES:
        raise DataError(f"{path}: has more than {MAX_BYTES >> 20} MiB unpacked; split it")


def _read_csv(path: Path) -> _Table:
    table: list[list[str]] = []
    try:
        with open_csv(path) as file:
            rows = csv.reader(file)
            places = _columns(path, next(rows, []))
            for row in rows:
                check_rows(path, len(table))
                table += [row] if row else []
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable csv ({reason(error)})") from None
    for row in table:
        if len(row) <= max(places):
            raise DataError(f"{path}: row {one_line(','.join(row))!r} has too few columns")
    left, right, label = ([row[place].strip() for row in table] for place in places)
    return left, right, label


def _read_parquet(path: Path) -> _Table:
    parquet = _pyarrow(path)
    try:
        check_parquet(path)
        names = parquet.read_schema(path).names
        chosen = [names[place] for place in _columns(path, names)]
        table = parquet.read_table(path, columns=chosen).to_pydict()
    except DataError:
        raise
    except Exception as error:  # pyarrow has many kinds
        raise DataError(f"{path}: not a readable parquet ({reason(error)})") from None
    left, right, label = ([str(value) for value in table[name]] for name in chosen)
    return left, right, label


def _pyarrow(path: Path) -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise missing_library(
            f"{path}: parquet", "pyarrow", "papercommons[parquet]", instead="use .csv"
        ) from None


def _columns(path: Path, header: Sequence[str]) -> list[int]:
    names = [name.strip() for name in header]
    for style in COLUMNS:
        if set(style) <= set(names):
            return [names.index(name) for name in style]
    raise DataError(
        f"{path}: expected columns left,right,label or sample1,sample2,label, "
        f"got {one_line(','.join(names))[:200]}"
    )


def _find(path: Path, words: Words, name: str) -> int:
    try:
        return words.index(name)
    except DataError as error:
        raise DataError(f"{path}: names what is not there: {error}") from None


def _label(path: Path, row: int, text: str) -> int:
    if text not in _LABELS:
        raise DataError(f"{path}: label {one_line(text)!r} in row {row + 1}; expected 0 or 1")
    return _LABELS[text]


def _check(path: Path, words: Words, pairs: Pairs) -> None:
    writers = np.array(words.writers)
    for wrong, what in (
        (pairs.left == pairs.right, "is paired with itself; remove the row"),
        (
            (writers[pairs.left] == writers[pairs.right]) != pairs.same.astype(bool),
            "have a label that does not agree with their writers (1: same writer, 0: different)",
        ),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            left, right = words.names[pairs.left[row]], words.names[pairs.right[row]]
            names = left if left == right else f"{left} and {right}"
            raise DataError(f"{path}: row {row + 1}: {names} {what}; {wrong.sum()} such rows")


def write_pairs(path: str | Path, pairs: Pairs, words: Words) -> None:
    """Write a list of pairs, whole or not at all; `read_pairs` reads it.

    Args:
        path: .csv or .csv.gz, with columns left,right,label, or .parquet, with the columns
            sample1,sample2,label of the authors' repository.
        pairs: what to write.
        words: the images.

    Raises:
        DataError: another kind of file, or parquet without pyarrow.
    """
    path = Path(path)
    _reader(path)
    columns: list[list[Any]] = [
        [words.names[i] for i in pairs.left],
        [words.names[i] for i in pairs.right],
        pairs.same.tolist(),
    ]
    if path.suffix.lower() == ".parquet":
        parquet = _pyarrow(path)
        table = importlib.import_module("pyarrow").table(
            dict(zip(COLUMNS[1], columns, strict=True))
        )
        with atomic_path(path) as temporary:
            parquet.write_table(table, temporary)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS[0])
    writer.writerows(zip(*columns, strict=True))
    content = text.getvalue().encode("utf-8", errors="surrogateescape")
    with atomic_path(path) as temporary:
        zipped = path.suffix.lower() == ".gz"
        temporary.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
