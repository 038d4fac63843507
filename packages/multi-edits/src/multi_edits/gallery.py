"""A gallery of edited images: the best and the worst in the report, all of them on pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from papercommons.pictures import heat, outline, side_by_side
from papercommons.report import Result, Section, write_report
from PIL import Image

FOLDER = "gallery"
SIDE = 224  # of a shown picture, in pixels
PER_PAGE = 24
BEST = 6  # shown in the report, and as many of the worst


@dataclass(frozen=True)
class Entry:
    """One record in a gallery.

    Attributes:
        name: heading.
        text: what was asked for, and how it went.
        pictures: makes the pictures, by their names; called when they are written.
        score: how faithful the result is, greater is better; None where that cannot be said.
    """

    name: str
    text: str
    pictures: Callable[[], Mapping[str, Image.Image]]
    score: float | None = None


@dataclass(frozen=True)
class Gallery:
    """Entries, shown by their scores.

    Attributes:
        entries: in any order.
        by: what the score is, in words.
    """

    entries: Sequence[Entry]
    by: str

    @cached_property
    def shown(self) -> list[Entry]:
        """The entries, best first, those without a score last."""
        return sorted(
            self.entries, key=lambda entry: math.inf if entry.score is None else -entry.score
        )

    def sections(self) -> list[Section]:
        """Return the part of a report: the best, the worst, and links to all pages."""
        scored = [entry for entry in self.shown if entry.score is not None]
        order = f"By {self.by}, highest first." if scored else ""
        if len(self.shown) <= 2 * BEST:
            return [Section("Records", text=order), *map(_section, self.shown)]
        links = {
            f"{first + 1}-{min(first + PER_PAGE, len(self.shown))}": f"{FOLDER}/{_page(first)}"
            for first in range(0, len(self.shown), PER_PAGE)
        }
        high = [_section(entry) for entry in self.shown[:BEST]]
        low = [_section(entry) for entry in reversed(scored[BEST:][-BEST:])]
        return [
            Section("All records", text=order, links=links),
            Section(f"Highest {self.by}" if scored else "The first records"),
            *high,
            *([Section(f"Lowest {self.by}"), *low] if low else []),
        ]

    def write_pages(self, folder: Path, result: Result) -> None:
        """Write pages of all entries into ``gallery``, unless all are in the report.

        Args:
            folder: of the run.
            result: whose facts each page carries.
        """
        if len(self.shown) <= 2 * BEST:
            return
        starts = range(0, len(self.shown), PER_PAGE)
        for first in starts:
            part = self.shown[first : first + PER_PAGE]
            last = first + len(part)
            links = {"report": "../report.html"}
            links |= {"before": _page(first - PER_PAGE)} if first else {}
            links |= {"next": _page(last)} if last < len(self.shown) else {}
            page = replace(
                result,
                title=f"{result.title}: {first + 1}-{last}",
                rows=[{"record": entry.name, self.by: entry.score} for entry in part],
                files={},
                notes=[],
            )
            sections = [*map(_section, part), Section("Pages", links=links)]
            write_report(folder / FOLDER / _page(first), page, sections)


def _page(first: int) -> str:
    return f"{first // PER_PAGE + 1:03d}.html"


def _section(entry: Entry) -> Section:
    pictures = entry.pictures()
    return Section(
        entry.name,
        text=entry.text,
        figure=side_by_side(list(pictures.values())),
        caption=" | ".join(pictures),
    )


def show_change(source: Image.Image, edited: Image.Image) -> Image.Image:
    """Return the source in grey, red where the edited image differs; a quarter is full red.

    Args:
        source: RGB.
        edited: RGB, of the same size.
    """
    apart = np.asarray(edited, np.int16) - np.asarray(source, np.int16)
    return heat(source, np.clip(np.abs(apart).max(axis=2) * 4, 0, 255))


def show_pair(
    source: Image.Image, edited: Mapping[str, Image.Image], mask: np.ndarray | None
) -> dict[str, Image.Image]:
    """Return the pictures of a record by name: source, results, what changed, and the mask.

    Args:
        source: RGB.
        edited: results by name, RGB, of the same size.
        mask: what was to be edited, bool, (H, W); None if it is not known.
    """
    pictures = {"source": source, **edited}
    if len(edited) == 1:
        (result,) = edited.values()
        pictures["changed (red)"] = show_change(source, result)
    if mask is not None:
        pictures["to be edited (yellow)"] = outline(source, mask)
    return pictures
