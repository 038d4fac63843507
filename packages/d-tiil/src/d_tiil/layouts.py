"""Data sets of pairs: a neutral list, and the published sets as downloaded. Needs no torch.

Layouts::

    jsonl          FILE.jsonl, or a folder with pairs.jsonl; see `d_tiil.layouts_jsonl`
    tiil           a folder with consistent.json and inconsistent.json; see `d_tiil.layouts_tiil`
    dgm4           a folder with metadata/{train,val,test}.json, or one of those files
    newsclippings  SPLIT.json of NewsCLIPpings, with Visual News' data.json beside it or given

Paths in a list begin at the set's folder and stay below it. What is wrong in a record is
collected, one line each; nothing in a file is evaluated or unpickled. Layouts of the published
sets are as their public readers have them, not checked against the archives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from papercommons.errors import DataError, nearest

from d_tiil.layouts_dgm4 import dgm4_files, read_dgm4
from d_tiil.layouts_jsonl import PAIRS, read_pairs
from d_tiil.layouts_newsclippings import read_newsclippings
from d_tiil.layouts_tiil import LISTS, read_tiil
from d_tiil.reading import read_json
from d_tiil.record_checks import Checks, Depth
from d_tiil.records import PairSet

Layout = Literal["auto", "jsonl", "tiil", "dgm4", "newsclippings"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def open_pairs(
    data: str | Path,
    *,
    layout: Layout = "auto",
    visual_news: str | Path | None = None,
    mask_key: str | None = None,
    word_key: str | None = None,
    check: Depth = "headers",
    strict: bool = False,
) -> PairSet:
    """Return the pairs of a data set, and what is wrong with it.

    Args:
        data: folder or file in one of the layouts above.
        layout: which; found out if auto.
        visual_news: layout newsclippings: file data.json of Visual News; its images are below its
            folder.
        mask_key: layout tiil: key of the masks, or none; looked for if not given.
        word_key: layout tiil: key of the inconsistent words, or none; looked for if not given.
        check: paths: images must be there; headers: their sizes are read, and masks in the list
            decoded; full: all images and mask files are decoded.
        strict: refuse a set with any defect.

    Raises:
        DataError: no such layout, an unreadable list, no records, or a defect if `strict`.
        ValueError: an unknown layout or depth of checks.
    """
    path, checks = Path(data), Checks(check)
    if layout not in LAYOUTS:
        known = nearest(layout, LAYOUTS) or f"; there are {', '.join(LAYOUTS)}"
        raise ValueError(f"no layout {layout!r}{known}")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected pairs (see --layout)")
    if layout == "auto":
        layout = _guess(path)
    if layout == "jsonl":
        read_pairs(path / PAIRS if path.is_dir() else path, checks)
    elif layout == "tiil":
        read_tiil(path, checks, mask_key=mask_key, word_key=word_key)
    elif layout == "dgm4":
        read_dgm4(path, checks)
    else:
        read_newsclippings(path, None if visual_news is None else Path(visual_news), checks)
    if strict and checks.defects:
        raise DataError(
            f"{path}: {checks.defects[0]} ({len(checks.defects)} defects in all); mend them or "
            "leave out --strict"
        )
    if not checks.records:
        why = f"; the first of {len(checks.defects)}: {checks.defects[0]}" if checks.defects else ""
        raise DataError(f"{path}: holds no records that can be used{why}")
    return PairSet(path, layout, tuple(checks.records), tuple(checks.defects))


def _guess(path: Path) -> Layout:
    if path.is_dir():
        if (path / PAIRS).is_file():
            return "jsonl"
        if any((path / name).is_file() for name in LISTS.values()):
            return "tiil"
        if dgm4_files(path):
            return "dgm4"
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        return "jsonl"
    else:
        held = read_json(path)
        if isinstance(held, dict) and isinstance(held.get("annotations"), list):
            return "newsclippings"
        if isinstance(held, list) and held and isinstance(held[0], dict) and "text" in held[0]:
            return "dgm4"
    raise DataError(
        f"{path}: no layout fits; expected a .jsonl list, {PAIRS}, {' or '.join(LISTS.values())}, "
        "metadata/test.json of DGM4, or a list of NewsCLIPpings (see --layout)"
    )
