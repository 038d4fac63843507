"""Files of a data set, which may be broken or mean harm: lists, paths, sizes. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from papercommons.data.images import read_image
from papercommons.errors import DataError, one_line, reason

MAX_LIST = 1 << 30  # bytes
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # of EXIF


def read_json(path: Path, *, max_bytes: int = MAX_LIST) -> Any:
    """Return what a JSON file holds.

    Args:
        path: of the file.
        max_bytes: above which it is refused.

    Raises:
        DataError: missing, too large, or no JSON.
    """
    try:
        return json.loads(_text(path, max_bytes))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not readable as JSON ({reason(error)})") from None


def read_lines(path: Path, *, max_bytes: int = MAX_LIST) -> Iterator[tuple[int, Any]]:
    """Give number, from 1, and value of each line of a JSONL file; empty ones are passed over.

    Args:
        path: of the file.
        max_bytes: above which it is refused.

    Raises:
        DataError: missing, too large, or a line that is no JSON.
    """
    for number, line in enumerate(_text(path, max_bytes).split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: no JSON ({reason(error)})") from None


def _text(path: Path, max_bytes: int) -> str:
    try:
        if path.stat().st_size > max_bytes:
            raise DataError(f"{path}: larger than {max_bytes:,} bytes; split it")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror})") from None


def below(root: Path, name: Any) -> Path:
    """Return the file that a list names, which must lie below a folder.

    Args:
        root: the folder.
        name: path relative to it.

    Raises:
        DataError: no name, or it leads out of the folder, by a link too.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DataError(f"names no file: {str(name)[:60]!r}")
    path = root / name
    try:
        inside = path.resolve().is_relative_to(root.resolve())
        path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, no text
        raise DataError(f"{one_line(name)[:60]}: names no file ({reason(error)})") from None
    if Path(name).is_absolute() or not inside:
        raise DataError(f"{one_line(name)} leads out of {root}")
    return path


def image_size(path: Path) -> tuple[int, int]:
    """Return H, W of an image as it is shown, from its header.

    Raises:
        DataError: missing, no image, or too large.
    """
    size: tuple[int, int] = read_image(path, convert=_shown_size)
    return size


def _shown_size(image: Any) -> tuple[int, int]:
    in_header = image.format != "PNG" or "exif" in image.info  # else it is decoded for it
    turned = in_header and image.getexif().get(_ORIENTATION, 1) in _TURNED
    return (image.width, image.height) if turned else (image.height, image.width)
