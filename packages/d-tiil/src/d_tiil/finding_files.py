"""What a method said of a data set as a folder: findings.jsonl, and pictures of maps and masks.

One line for each pair, of which only id and caption are needed; other programs may write it too::

    {"id": name of the record, "caption": its text, "score": number, higher: more inconsistent,
     "map": path of a grey PNG of any size, "mask": path of a black and white one,
     "words": [[start, end], ...], "top": [start, end], "features": {name: number},
     "made_with": {name: text}}

Paths begin at the folder and stay below it; made_with says for each feature by which model and
settings it was measured. Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.data.defects import Defect
from papercommons.data.images import read_image
from papercommons.errors import DataError
from papercommons.files import write_text

from d_tiil.findings import Finding
from d_tiil.phrases import Phrase
from d_tiil.reading import below, read_lines
from d_tiil.records import Record, light_pixels

FINDINGS = "findings.jsonl"
_MOST = 1e300  # a JSON integer may be larger than any float


@dataclass(frozen=True)
class FindingSet:
    """The findings of one method.

    Attributes:
        label: its name in tables.
        folder: of its files.
        lines: by the record's name.
    """

    label: str
    folder: Path
    lines: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @classmethod
    def open(cls, label: str, folder: Path) -> FindingSet:
        """Return those of a folder.

        Raises:
            DataError: no such folder or list, or a line is not as documented.
        """
        path = folder / FINDINGS
        if not path.is_file():
            raise DataError(f"{folder}: no {FINDINGS}; give the --out folder of d-tiil-predict")
        lines: dict[str, Mapping[str, Any]] = {}
        for number, line in read_lines(path):
            if not isinstance(line, dict) or not isinstance(line.get("id"), str):
                raise DataError(f"{path}, line {number}: needs an object with id and caption")
            if line["id"] in lines:
                raise DataError(f"{path}, line {number}: {line['id']!r} is there twice")
            lines[line["id"]] = line
        return cls(label, folder, lines)

    def lacks(self, record: Record) -> Defect | None:
        """Return what is wrong if there is no finding of a record's image and caption."""
        line = self.lines.get(record.name)
        if line is None:
            return Defect(record.name, f"{self.folder} says nothing of it", "a finding", True)
        if line.get("caption") != record.caption:
            what = f"{self.folder} has another caption for it"
            return Defect(record.name, what, "findings on the same data set", True)
        return None

    def features(self, record: Record) -> dict[str, float]:
        """Return the measured quantities of a record.

        Raises:
            DataError: there are none, or they are no finite numbers.
        """
        found = self.lines[record.name].get("features")
        if not isinstance(found, dict) or not found:
            raise DataError(
                f"{self.folder}: {record.name} has no features; give a run of d-tiil-predict with "
                "--method d-tiil"
            )
        return {str(name): self._number(value, record) for name, value in found.items()}

    def made_with(self, record: Record, feature: str) -> str:
        """Return by what a quantity of a record was measured; empty: not known."""
        said = self.lines[record.name].get("made_with")
        return str(said.get(feature, "")) if isinstance(said, dict) else ""

    def finding(self, record: Record) -> Finding:
        """Return what was said of a record.

        Raises:
            DataError: a picture or a value cannot be used.
        """
        line = self.lines[record.name]
        score, words, top = line.get("score"), line.get("words"), line.get("top")
        levels, mask = line.get("map"), line.get("mask")
        return Finding(
            score=None if score is None else self._number(score, record),
            mask=None if mask is None else self._mask(mask),
            map=None if levels is None else self._levels(levels),
            words=None if words is None else self._phrases(words, record),
            top=None if top is None else self._phrases([top], record)[0],
        )

    def _number(self, value: Any, record: Record) -> float:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not numeric or not abs(value) < _MOST:
            raise DataError(f"{self.folder / FINDINGS}: {record.name}: {value!r} is no number")
        return float(value)

    def _levels(self, name: Any) -> np.ndarray:
        return np.asarray(read_image(below(self.folder, name)).convert("L"))

    def _mask(self, name: Any) -> np.ndarray:
        mask: np.ndarray = read_image(below(self.folder, name), convert=light_pixels)
        return mask

    def _phrases(self, places: Any, record: Record) -> tuple[Phrase, ...]:
        found = []
        for place in places if isinstance(places, list) else [places]:
            whole = (
                isinstance(place, list)
                and len(place) == 2
                and all(isinstance(end, int) for end in place)
            )
            if not whole or not 0 <= place[0] < place[1] <= len(record.caption):
                raise DataError(
                    f"{self.folder / FINDINGS}: {record.name}: {str(place)[:40]} is no place "
                    "[start, end] in its caption"
                )
            found.append(Phrase(record.caption[place[0] : place[1]], place[0], place[1]))
        return tuple(found)


def write_findings(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write the list, whole or not at all, and return its path.

    Args:
        folder: of the findings.
        lines: one for each pair, see the module.
    """
    texts = (json.dumps(line, ensure_ascii=False, allow_nan=False) for line in lines)
    path = folder / FINDINGS
    write_text(path, "".join(f"{text}\n" for text in texts))
    return path


def name_sets(given: Sequence[str]) -> dict[str, Path]:
    """Return folders by label.

    Args:
        given: folders, or ``NAME=FOLDER``; a folder's label is its name.

    Raises:
        DataError: there is none, one does not exist, or two have one label.
    """
    if not given:
        raise DataError("--predicted is empty; give --out folders of d-tiil-predict")
    sets: dict[str, Path] = {}
    for part in given:
        label, equals, place = part.partition("=")
        if Path(part).is_dir() or not equals:
            label, place = Path(part).resolve().name, part
        if not Path(place).is_dir():
            raise DataError(f"{place}: no such folder; --predicted takes those of d-tiil-predict")
        if not label or label in sets:
            which = "two folders are" if label else "a folder is"
            raise DataError(f"--predicted: {which} called {label!r}; give NAME=FOLDER")
        sets[label] = Path(place)
    return sets
