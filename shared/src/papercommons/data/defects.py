"""What is wrong with a data set's records: named, counted, written."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from papercommons.errors import DataError, one_line
from papercommons.files import write_csv

DEFECTS = "defects.csv"
log = logging.getLogger("papercommons")
_NAMED = 10  # on the screen


@dataclass(frozen=True)
class Defect:
    """Something in a record that is not as it should be.

    Attributes:
        record: its name.
        what: is wrong.
        expected: in its place.
        fatal: the record is left out; else only what is wrong in it is.
    """

    record: str
    what: str
    expected: str
    fatal: bool = False

    def __str__(self) -> str:
        return one_line(f"{self.record}: {self.what}; expected {self.expected}")


def defect_notes(defects: Sequence[Defect]) -> list[str]:
    """Return lines that count all defects and name the first, those of lost records first."""
    if not defects:
        return []
    lost = {defect.record for defect in defects if defect.fatal}
    first = sorted(defects, key=lambda defect: not defect.fatal)[:_NAMED]
    lines = [f"{'left out' if defect.fatal else 'defect'}: {defect}" for defect in first]
    more = len(defects) - len(first)
    return [
        f"{len(defects):,} defects; {len(lost):,} records left out",
        *lines,
        *([f"{more:,} more in {DEFECTS}"] if more else []),
    ]


def write_defects(folder: Path, defects: Sequence[Defect]) -> None:
    """Write defects.csv into a folder, or remove an old one if there are none."""
    if defects:
        write_csv(folder / DEFECTS, [asdict(defect) for defect in defects])
    else:
        (folder / DEFECTS).unlink(missing_ok=True)


class LeftOut:
    """Items that cannot be used: named on the screen and counted, or refused.

    Attributes:
        lines: what is wrong, one line for each.

    Args:
        skip_bad: leave them out; else the first one is raised.

    Example:
        >>> left_out = LeftOut(skip_bad=True)
        >>> for name in ("a", "b"):
        ...     with left_out.noting():
        ...         raise DataError(f"{name}: broken")
        >>> left_out.notes()
        ['left out: a: broken', 'left out: b: broken']
    """

    def __init__(self, skip_bad: bool) -> None:
        self.skip_bad = skip_bad
        self.lines: list[str] = []

    def __len__(self) -> int:
        return len(self.lines)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a `DataError` of the block, and go on after it.

        Raises:
            DataError: that of the block, where none is left out.
        """
        try:
            yield
        except DataError as error:
            if not self.skip_bad:
                raise
            log.warning("left out: %s", error)
            self.lines.append(str(error))

    def check_any(self, used: int, what: str) -> None:
        """Refuse to go on with nothing.

        Args:
            used: how many items could be used.
            what: they are, in the plural: ``photographs``.

        Raises:
            DataError: none could.
        """
        if not used:
            why = self.lines[0] if self.lines else "there are none"
            raise DataError(f"none of the {what} can be used: {why}")

    def notes(self) -> list[str]:
        """Return a line for each item left out."""
        return [f"left out: {line}" for line in self.lines]
