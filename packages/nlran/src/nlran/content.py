"""What a scan's files contain: fingerprints for the cache, and copies of one scan."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

_CHUNK = 64 << 10


def scan_files(path: Path) -> list[Path]:
    """Return the files of a scan, by name: of a folder all in it, of a header its data too.

    Args:
        path: a file or a folder.
    """
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    data = (path.with_suffix(suffix) for suffix in companions(path))
    return [path, *(file for file in data if file.is_file())]


def companions(path: Path) -> tuple[str, ...]:
    """Return the suffixes that the data of a header file may have."""
    return {".mhd": (".raw", ".zraw"), ".hdr": (".img",)}.get(path.suffix.lower(), ())


def fingerprint(files: Sequence[Path]) -> str:
    """Return a hash of names, sizes, times of change and parts of the contents of files.

    Of the first, the middle and the last file the beginning, the middle and the end count.

    Args:
        files: of one scan.
    """
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(f"{stats}{_sample(files)}".encode(errors="replace")).hexdigest()


def find_copies(scans: Sequence[Path]) -> list[list[int]]:
    """Return groups of scans with the same content whatever their names, as places in `scans`.

    Only scans of equal size are opened, and only those alike in places are read whole.

    Args:
        scans: a file or a folder each.
    """
    files = [scan_files(path) for path in scans]
    groups = [list(range(len(scans)))]
    keys: list[Callable[[Sequence[Path]], Hashable]] = [_sizes, _sample, _whole]
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


def _sample(files: Sequence[Path]) -> Hashable:
    digest = hashlib.sha256()
    for file in dict.fromkeys((files[0], files[len(files) // 2], files[-1])) if files else ():
        size = file.stat().st_size
        with file.open("rb") as stream:
            for start in (0, size // 2, size - _CHUNK):
                stream.seek(max(0, start))
                digest.update(stream.read(_CHUNK))
    return digest.hexdigest()


def _whole(files: Sequence[Path]) -> Hashable:
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return tuple(digests)
