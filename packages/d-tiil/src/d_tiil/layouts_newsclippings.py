"""NewsCLIPpings: news pictures with captions of others. Needs no torch.

A list holds ``{"annotations": [{"id", "image_id", "falsified", ...}]}``: the caption is that of id,
the picture that of image_id, both in Visual News' data.json, a list of ``{"id", "caption",
"image_path"}`` whose paths begin at its folder. There are neither masks nor words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papercommons.errors import DataError

from d_tiil.reading import read_json
from d_tiil.record_checks import SPLITS, Checks
from d_tiil.records import Record

DATA = "data.json"
MAX_NEWS = 4 << 30  # bytes: over a million articles
KIND = "other picture"


def read_newsclippings(path: Path, visual_news: Path | None, checks: Checks) -> None:
    """Read a list into `checks`.

    Args:
        path: SPLIT.json; the split is its name.
        visual_news: data.json, or its folder; beside the list if not given.
        checks: gets records and defects.

    Raises:
        DataError: a list that cannot be read or has other keys, or no Visual News.
    """
    if path.is_dir():
        raise DataError(f"{path}: give one list of NewsCLIPpings, such as merged_balanced/val.json")
    held = read_json(path)
    rows = held.get("annotations") if isinstance(held, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected the list annotations of NewsCLIPpings")
    place = path.parent if visual_news is None else visual_news
    news = place / DATA if place.is_dir() else place
    if not news.is_file():
        raise DataError(f"{news}: no such file; give {DATA} of Visual News with --visual-news")
    articles = _articles(news, rows)
    split = SPLITS.get(path.stem.lower(), "")
    for number, row in enumerate(rows, 1):
        name = checks.unique(f"{path.stem}/{number}")
        if isinstance(row, dict):
            _read_row(news.parent, split, name, row, articles, checks)
        else:
            checks.wrong(name, "no object", "one with id and image_id", fatal=True)


def _articles(news: Path, rows: list[Any]) -> dict[str, Mapping[str, Any]]:
    """Return the articles that a list names, by id."""
    held = read_json(news, max_bytes=MAX_NEWS)
    if not isinstance(held, list):
        raise DataError(f"{news}: expected a list of objects with id, caption and image_path")
    wanted = {str(row.get(key)) for row in rows if isinstance(row, dict) for key in _KEYS}
    found = (entry for entry in held if isinstance(entry, dict) and "id" in entry)
    return {str(entry["id"]): entry for entry in found if str(entry["id"]) in wanted}


_KEYS = ("id", "image_id")


def _read_row(
    root: Path,
    split: str,
    name: str,
    row: Mapping[str, Any],
    articles: Mapping[str, Mapping[str, Any]],
    checks: Checks,
) -> None:
    said, shown = (str(row.get(key)) for key in _KEYS)
    if missing := [key for key in dict.fromkeys((said, shown)) if key not in articles]:
        what = f"Visual News has no article {', '.join(missing)[:60]}"
        checks.wrong(name, what, "ids of its data.json", fatal=True)
        return
    falsified = row.get("falsified")
    if not isinstance(falsified, bool):
        checks.wrong(name, "no falsified", "true or false", fatal=True)
        return
    image = checks.image(name, root, articles[shown].get("image_path"))
    caption = checks.caption(name, articles[said].get("caption"))
    if image is None or caption is None:
        return
    if falsified == (said == shown):
        what = f"falsified is {str(falsified).lower()}, but the ids are {said} and {shown}"
        checks.wrong(name, what, "different ids where falsified, the same elsewhere")
    checks.records.append(
        Record(
            name,
            image,
            caption,
            "inconsistent" if falsified else "consistent",
            kind=KIND,
            edited="" if falsified else "none",
            split=split,
            source=said,
        )
    )
