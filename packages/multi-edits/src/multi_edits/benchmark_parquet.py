"""The parquet files of PIE-Bench++: rows of text, and images read when asked for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papercommons.data.images import read_image
from papercommons.errors import DataError, missing_library, reason

MAX_IMAGE_BYTES = 100_000_000
MAX_PIXELS = 40_000_000
MAX_ROWS = 100_000
MAX_GROUP_BYTES = 1 << 30  # of the rows that a file keeps together, unpacked
_ORIENTATION = 0x0112  # of EXIF
_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class ParquetImage:
    """An image inside a parquet file.

    Attributes:
        file: the parquet file.
        row: 0-based.
    """

    file: Path
    row: int

    def __str__(self) -> str:
        return f"{self.file} row {self.row}"

    def read_bytes(self) -> bytes:
        """Return the image's file.

        Raises:
            DataError: not readable, or no image in this row.
        """
        with _reading(self.file) as parquet:
            before = 0
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                if self.row < before + count:
                    column = parquet.read_row_group(group, columns=["image"]).column("image")
                    return _bytes_of(column[self.row - before].as_py(), str(self))
                before += count
        raise DataError(f"{self}: no such row")

    def open(self) -> Any:
        """Return the PIL image in RGB.

        Raises:
            DataError: not readable, or no image in this row.
        """
        return read_image_bytes(self.read_bytes(), str(self))


def read_image_bytes(content: bytes, name: str) -> Any:
    """Return the PIL image in RGB of a file's content.

    Args:
        content: of the image file.
        name: for the message.

    Raises:
        DataError: not readable.
    """
    stream: Any = io.BytesIO(content)
    try:
        return read_image(stream)
    except DataError as error:
        raise DataError(str(error).replace(str(stream), name)) from error


def list_parquet_files(folder: Path) -> list[tuple[str, Path]]:
    """Return configuration and path of the files ``CONFIG/*.parquet``, sorted.

    Args:
        folder: as downloaded; files in it that lie in no sub-folder count by their stem.
    """
    inside = folder.resolve()
    files = sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")])
    files = [path for path in files if path.resolve().is_relative_to(inside)]
    return [(path.stem if path.parent == folder else path.parent.name, path) for path in files]


def read_rows(file: Path) -> Iterator[tuple[dict[str, Any], tuple[int, int] | str]]:
    """Give each row's text columns, and its image's size as H, W or else why it has none.

    Args:
        file: a parquet file with an ``image`` column.

    Raises:
        DataError: not a parquet file, or without the columns needed.
    """
    with _reading(file) as parquet:
        names = parquet.schema_arrow.names
        if missing := {"image", "source_prompt", "target_prompt"} - set(names):
            raise DataError(f"{file}: no column {', '.join(sorted(missing))}; has {names}")
        row = 0
        for batch in parquet.iter_batches(batch_size=16):
            for values in batch.to_pylist():
                yield values, _size_of(values.pop("image"), f"{file} row {row}")
                row += 1


@contextmanager
def _reading(file: Path) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise missing_library(f"{file}: parquet", "pyarrow", "multi-edits[parquet]") from None
    try:
        with ParquetFile(file) as parquet:
            stated = parquet.metadata
            groups = [stated.row_group(k).total_byte_size for k in range(stated.num_row_groups)]
            if stated.num_rows > MAX_ROWS or max(groups, default=0) > MAX_GROUP_BYTES:
                raise DataError(
                    f"{file}: at most {MAX_ROWS:,} rows, and groups of {MAX_GROUP_BYTES >> 20:,} "
                    "MiB, are read; split it"
                )
            yield parquet
    except (ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable parquet file ({reason(error)})") from error


def _bytes_of(value: Any, name: str) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes) or not content:
        raise DataError(f"{name}: no image bytes in the column image")
    if len(content) > MAX_IMAGE_BYTES:
        raise DataError(f"{name}: {len(content):,} bytes; at most {MAX_IMAGE_BYTES:,} are read")
    return content


def _size_of(value: Any, name: str) -> tuple[int, int] | str:
    try:
        return image_size(io.BytesIO(_bytes_of(value, name)), name)
    except DataError as error:
        return str(error)


def image_size(file: Any, name: str) -> tuple[int, int]:
    """Return H, W of an image as `read_image` gives it, from its header.

    Args:
        file: path or stream.
        name: for the message.

    Raises:
        DataError: missing, not an image, or more than 40 million pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(file, Path) and not file.is_file():  # a pipe would never end
            raise FileNotFoundError
        with Image.open(file) as image:
            in_header = image.format != "PNG" or "exif" in image.info  # else it is decoded for it
            turned = in_header and image.getexif().get(_ORIENTATION, 1) in _TURNED
            width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(
                f"{name}: {width} x {height} pixels, more than {MAX_PIXELS:,}; make it smaller"
            )
        return (width, height) if turned else (height, width)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except Exception as error:  # decoders fail in many ways on what is broken
        why = (
            "not in a format that Pillow knows"
            if isinstance(error, UnidentifiedImageError)
            else reason(error)
        )
        raise DataError(f"{name}: not a readable image ({why})") from error
