"""What is wrong with a data set's records: named, counted, written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from papercommons.errors import one_line
from papercommons.files import write_csv

DEFECTS = "defects.csv"
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
