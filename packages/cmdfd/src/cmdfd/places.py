"""Where the files of a list are: below its folder or a root, never outside."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from papercommons.errors import DataError, one_line

LONGEST = 255  # bytes of a file's or a folder's name


def shortened(name: str, most: int = 100) -> str:
    """Return the end of a name; a letter that the cut goes through is replaced.

    Args:
        name: of a clip, any text.
        most: bytes that are kept, >= 1.
    """
    return name.encode(errors="replace")[-most:].decode(errors="replace")


class Places:
    """Finds files that a list names.

    Relative paths begin at the root, or else at the list's folder. Absolute ones are those of
    another machine: with a root, the fewest leading folders are dropped that make a file be found
    below it, and what was dropped once is tried first from then on.

    Args:
        folder: of the list.
        root: where the files are.
        files: they must exist; without, names are taken as they are and nothing is looked up.

    Raises:
        DataError: the root is no folder.
    """

    def __init__(self, folder: Path, root: str | Path | None, *, files: bool = True) -> None:
        self.folder = folder if root is None else Path(root)
        self.moved, self.files = root is not None, files
        if files and not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder; --root is where the list's files are")
        self._inside = self.folder.resolve()
        self._dropped: list[tuple[str, ...]] = []

    def holds(self, name: str) -> bool:
        """Return whether `find` finds a file."""
        try:
            self.find(name)
        except DataError:
            return False
        return True

    def find(self, name: str) -> Path:
        """Return the file that a list names.

        Args:
            name: path as listed.

        Raises:
            DataError: the path is empty, leads out of the folder, or there is no such file.
        """
        parts = _parts(name)
        if not parts or "\0" in name:
            raise DataError("names no file")
        if any(len(part.encode(errors="replace")) > LONGEST for part in parts):
            raise DataError(f"{one_line(name)[:60]}...: no file has so long a name")
        if ".." in parts:
            raise DataError(f"{one_line(name)} leads out of {self.folder}; write it without ..")
        absolute = parts[0] == "/" or parts[0].endswith((":", ":\\"))
        if not self.files:
            return Path(*parts) if absolute else self.folder.joinpath(*parts)
        file = self._moved(parts[1:], name) if absolute else self.folder.joinpath(*parts)
        if not file.exists():
            raise DataError(f"no such file: {one_line(str(file))}; see --root")
        if not file.resolve().is_relative_to(self._inside):
            raise DataError(f"{one_line(name)} leads out of {self.folder}")
        return file

    def _moved(self, parts: tuple[str, ...], name: str) -> Path:
        if not self.moved:
            file = Path(name)
            if file.resolve().is_relative_to(self._inside):
                return file
            raise DataError(
                f"{one_line(name)} is not below {self.folder}; give the folder that holds the "
                "files with --root"
            )
        for prefix in self._dropped:
            rest = parts[len(prefix) :]
            if rest and parts[: len(prefix)] == prefix and self.folder.joinpath(*rest).exists():
                return self.folder.joinpath(*rest)
        for count in range(len(parts)):
            file = self.folder.joinpath(*parts[count:])
            if file.exists():
                self._dropped.insert(0, parts[:count])
                return file
        raise DataError(f"no end of {one_line(name)} is a file below {self.folder}; see --root")


def _parts(name: str) -> tuple[str, ...]:
    windows = PureWindowsPath(name)
    if windows.drive or ("\\" in name and "/" not in name):
        return windows.parts
    return PurePosixPath(name).parts
