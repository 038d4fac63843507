"""What is wrong with a benchmark's records: written, counted, named. Needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from papercommons.files import write_csv

from multi_edits.benchmark import Defect

DEFECTS = "defects.csv"
_NAMED = 10  # on the screen


def write_defects(folder: Path, defects: Sequence[Defect]) -> None:
    """Write defects.csv, what is wrong with records and what was expected, if there are any."""
    if defects:
        write_csv(folder / DEFECTS, [asdict(defect) for defect in defects])
    else:
        (folder / DEFECTS).unlink(missing_ok=True)


def defect_notes(defects: Sequence[Defect]) -> list[str]:
    """Return lines that name the first defects and count all, fatal ones first."""
    if not defects:
        return []
    fatal = {defect.record for defect in defects if defect.fatal}
    first = sorted(defects, key=lambda defect: not defect.fatal)[:_NAMED]
    lines = [f"{'left out' if defect.fatal else 'defect'}: {defect}" for defect in first]
    more = len(defects) - len(first)
    return [
        f"{len(defects):,} defects; {len(fatal):,} records left out",
        *lines,
        *([f"{more:,} more in {DEFECTS}"] if more else []),
    ]


def hash_texts(texts: Iterable[str]) -> str:
    """Return a short hash of texts in their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
