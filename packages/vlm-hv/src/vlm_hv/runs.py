"""Runs read from their files: named, and cut to the pairs that all of them have; needs no torch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papercommons.errors import DataError

from vlm_hv.records import Record, read_records

log = logging.getLogger("papercommons")

PREDICTIONS = "predictions.jsonl"
PREDICTIONS_VAL = "predictions_val.jsonl"
CONTROLS = {
    "blank": "CONTROL: the pictures were blank",
    "shuffle": "CONTROL: every pair got the pictures of another",
    "text-only": "CONTROL: no pictures were sent",
}


@dataclass(frozen=True)
class Run:
    """The records of one run.

    Attributes:
        path: the file.
        name: of the system, unlike that of any other.
        records: by pair; ``pair`` counts from 0, equal for equal pairs of all runs.
        left_out: pairs that another run does not have.
    """

    path: Path
    name: str
    records: list[Record]
    left_out: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the first record."""
        found: dict[str, Any] = self.records[0]["settings"]
        return found

    @property
    def ablation(self) -> str:
        """What was done to the pictures, ``none`` if nothing."""
        return str(self.settings.get("ablation") or "none")

    def notes(self) -> list[str]:
        """Return what a reader must know of the run before its numbers."""
        said = [f"{self.name}: {CONTROLS[self.ablation]}"] if self.ablation in CONTROLS else []
        if self.left_out:
            said.append(f"{self.name}: {self.left_out:,} PAIRS LEFT OUT: not in every run")
        return said


def find_predictions(source: str) -> Path:
    """Return the file of records meant by `source`: itself, or predictions.jsonl of a run's folder.

    Raises:
        DataError: there is none.
    """
    path = Path(source)
    path = path / PREDICTIONS if path.is_dir() else path
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; give the {PREDICTIONS} or the --out folder of vlm-hv-predict, "
            "vlm-hv-train or vlm-hv-baseline"
        )
    return path


def read_runs(sources: Sequence[str]) -> list[Run]:
    """Return the runs, with the pairs that all of them have, in the order of the first.

    Args:
        sources: files, or folders of runs.

    Raises:
        DataError: a file cannot be read, is given twice, or they have no pair in common.
    """
    paths = [find_predictions(source) for source in sources]
    twice = [path for path, count in Counter(p.resolve() for p in paths).items() if count > 1]
    if twice:
        raise DataError(f"{twice[0]}: given twice; give each run once")
    tables = [dict(_keyed(read_records(path))) for path in paths]
    common = [key for key in tables[0] if all(key in table for table in tables)]
    if not common:
        raise DataError(
            f"{paths[0]} and {paths[-1]} have no pair in common; run them on the same --pairs"
        )
    names = _names([next(iter(table.values())) for table in tables])
    return [
        Run(
            path,
            name,
            [table[key] | {"pair": place} for place, key in enumerate(common)],
            len(table) - len(common),
        )
        for path, name, table in zip(paths, names, tables, strict=True)
    ]


def _keyed(records: Sequence[Record]) -> list[tuple[tuple[str, str, int], Record]]:
    """Return records by both names, and a number where a list has a pair twice."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for record in records:
        names = (record["known"], record["questioned"])
        found.append(((*names, seen[names]), record))
        seen[names] += 1
    return found


def _names(first: Sequence[Record]) -> list[str]:
    """Return a name per run, of what its settings say."""
    plain = []
    for record in first:
        settings = record["settings"]
        model = str(settings.get("model") or "?").rstrip("/")
        model = "/".join(model.removesuffix("/export").split("/")[-2:])
        mode, ablation = settings.get("mode"), settings.get("ablation") or "none"
        said = [model, *([str(mode)] if mode not in (None, "baseline") else [])]
        plain.append(", ".join([*said, *([str(ablation)] if ablation != "none" else [])]))
    counts, seen, names = Counter(plain), Counter[str](), []
    for name in plain:
        seen[name] += 1
        names.append(f"{name} ({seen[name]})" if counts[name] > 1 else name)
    return names
