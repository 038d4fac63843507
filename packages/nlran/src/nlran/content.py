"""What a scan's files contain: fingerprints for the cache, and copies of one scan."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from nlran.volumes import visible_files

HEADER = 64 << 10  # bytes in which a header must end
_CHUNK = 64 << 10
_LONGEST_NAME = 256
_GLIMPSE = 4 << 10
_METAIMAGE = re.compile(rb"^\s*ElementDataFile\s*[=:][=:\s]*([^\n]*)\n?", re.MULTILINE)
_NRRD = re.compile(  # a blank line ends the header
    rb"(?:^|[\r\n])data ?file:([^\r\n]*)|\r?\n\r?\n|\n\r|\r\r", re.IGNORECASE
)
_POINTERS = {".mha": _METAIMAGE, ".mhd": _METAIMAGE, ".nrrd": _NRRD}


def scan_files(path: Path) -> list[Path]:
    """Return the files of a scan, by name: of a folder all in it, of a header its data too.

    Args:
        path: a file or a folder.
    """
    return visible_files(path) if path.is_dir() else [path, *companions(path)]


def companions(path: Path) -> list[Path]:
    """Return the files beside or below a header that hold its voxels; none if it has its own.

    Args:
        path: any file.
    """
    names = [path.stem + ".img"] if path.suffix.lower() == ".hdr" else pointers(path)
    if not names:
        return []
    inside = path.parent.resolve()
    possible = (n for n in names if n != "LOCAL" and "\0" not in n and len(n) < _LONGEST_NAME)
    data = [path.parent / name for name in possible]
    return [file for file in data if file.resolve().is_relative_to(inside) and file.is_file()]


def pointers(path: Path) -> dict[str, int]:
    """Return what the header of a MetaImage or NRRD file says of where its voxels are.

    Args:
        path: any file; none but .mha, .mhd and .nrrd are opened.

    Returns:
        Names as they are written, LOCAL for the file itself; and the byte after each.
    """
    pattern = _POINTERS.get(path.suffix.lower())
    if pattern is None or not path.is_file():
        return {}
    with path.open("rb") as file:
        header = file.read(HEADER)
    found: dict[str, int] = {}
    for match in pattern.finditer(header):
        name = "LOCAL" if match[1] is None else match[1].strip().decode(errors="replace")
        found.setdefault("LOCAL" if name.upper() == "LOCAL" else name, match.end())
    return found


def fingerprint(files: Sequence[Path]) -> str:
    """Return a hash of names, sizes, times of change and a `sample` of files.

    Args:
        files: of one scan.
    """
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(f"{stats}{sample(files)}".encode(errors="replace")).hexdigest()


def sample(files: Sequence[Path]) -> str:
    """Return a hash of the beginning, middle and end of the first, middle and last file.

    Args:
        files: of one scan.
    """
    digest = hashlib.sha256()
    for file in dict.fromkeys((files[0], files[len(files) // 2], files[-1])) if files else ():
        size = file.stat().st_size
        with file.open("rb") as stream:
            for start in (0, size // 2, size - _CHUNK):
                stream.seek(max(0, start))
                digest.update(stream.read(_CHUNK))
    return digest.hexdigest()


def find_copies(scans: Sequence[Path]) -> list[list[int]]:
    """Return groups of scans with the same content whatever their names, as places in `scans`.

    Of a header with its voxels in another file only that one counts. Only scans of equal size are
    opened, and only those alike in places are read whole.

    Args:
        scans: a file or a folder each.
    """
    files = [companions(path) or scan_files(path) for path in scans]
    groups = [list(range(len(scans)))]
    keys: list[Callable[[Sequence[Path]], Hashable]] = [_sizes, _glimpses, _digests]
    for key in keys:
        groups = [alike for group in groups for alike in _alike(group, files, key)]
    return groups


def _alike(
    group: Iterable[int], files: Sequence[Sequence[Path]], key: Callable[[Sequence[Path]], Hashable]
) -> list[list[int]]:
    places = defaultdict(list)
    for place in group:
        places[key(files[place])].append(place)
    return [alike for alike in places.values() if len(alike) > 1]


def _sizes(files: Sequence[Path]) -> Hashable:
    return tuple(sorted(file.stat().st_size for file in files))


def _glimpses(files: Sequence[Path]) -> Hashable:
    glimpses = []
    for file in files:
        with file.open("rb") as stream:
            stream.seek(file.stat().st_size // 2)
            glimpses.append(stream.read(_GLIMPSE))
    return tuple(sorted(glimpses))


def _digests(files: Sequence[Path]) -> Hashable:
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return tuple(sorted(digests))
