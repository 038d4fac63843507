"""The DGM4 data set: news pairs with altered faces and words. Needs no torch.

As its reader has it: metadata/{train,val,test}.json, each a list of ``{"id", "image", "text",
"fake_cls", "fake_image_box", "fake_text_pos"}``. Images are named from the folder above DGM4; boxes
are left, top, right, bottom in pixels; positions count the words of the text as white space parts
them. A manipulation of the picture alone has no words, one of the text alone no region.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from papercommons.errors import DataError

from d_tiil.phrases import Phrase
from d_tiil.reading import read_json
from d_tiil.record_checks import Checks
from d_tiil.records import BoxMask, Edited, Label, Record
from d_tiil.word_spans import tokens_at

ORIGINAL = "orig"
_FOLDER = "DGM4"
_METADATA = "metadata"
_SPLITS = ("train", "val", "test")
_NEEDED = ("image", "text", "fake_cls")


def dgm4_files(path: Path) -> dict[str, Path]:
    """Return the lists of a folder by split, or the file itself; nothing if there are none."""
    if path.is_file():
        return {path.stem if path.stem in _SPLITS else "": path}
    root = path / _FOLDER if (path / _FOLDER / _METADATA).is_dir() else path
    files = {split: root / _METADATA / f"{split}.json" for split in _SPLITS}
    return {split: file for split, file in files.items() if file.is_file()}


def read_dgm4(path: Path, checks: Checks) -> None:
    """Read a folder, or one list, into `checks`.

    Args:
        path: the folder DGM4, the one above, or a list in its folder metadata.
        checks: gets records and defects.

    Raises:
        DataError: no list, or one without the keys that are needed.
    """
    files = dgm4_files(path)
    if not files:
        raise DataError(f"{path}: no {_METADATA}/train.json, val.json or test.json")
    for split, file in files.items():
        held = read_json(file)
        rows = held if isinstance(held, list) else []
        keys = {key for row in rows if isinstance(row, dict) for key in row}
        if not set(_NEEDED) <= keys:
            raise DataError(
                f"{file}: expected a list of objects with {', '.join(_NEEDED)}; keys found: "
                f"{', '.join(sorted(keys)[:20]) or 'none'}"
            )
        root = file.parent.parent if file.parent.name == _METADATA else file.parent
        for number, row in enumerate(rows, 1):
            place = f"{split or file.stem}/{number}"
            if isinstance(row, dict):
                _read_row(root, split, place, row, checks)
            else:
                checks.wrong(place, "no object", "one with image and text", fatal=True)


def _read_row(root: Path, split: str, place: str, row: Mapping[str, Any], checks: Checks) -> None:
    name = checks.unique(place)  # ids of the list are those of pictures, and are there repeatedly
    given = row.get("image")
    inside = given.removeprefix(f"{_FOLDER}/") if isinstance(given, str) else given
    image = checks.image(name, root, inside)
    caption = checks.caption(name, row.get("text"))
    kind = row.get("fake_cls")
    if not isinstance(kind, str) or not kind:
        checks.wrong(name, "no fake_cls", f"{ORIGINAL} or what was altered", fatal=True)
        return
    if image is None or caption is None:
        return
    label: Label = "consistent" if kind == ORIGINAL else "inconsistent"
    mask = _box(name, row.get("fake_image_box"), checks)
    checks.records.append(
        Record(
            name,
            image,
            caption,
            label,
            checks.mask(name, mask, image, label, needed="face" in kind),
            checks.words(
                name,
                label,
                partial(_words, caption, row.get("fake_text_pos")),
                needed="text" in kind,
            ),
            kind=kind,
            edited=_edited(kind),
            split=split,
            source=str(row.get("id") or given),
        )
    )


def _edited(kind: str) -> Edited:
    if kind == ORIGINAL:
        return "none"
    if "face" in kind and "text" in kind:
        return "both"
    return "image" if "face" in kind else "caption"


def _box(name: str, given: Any, checks: Checks) -> BoxMask | None:
    if given in (None, []):
        return None
    whole = isinstance(given, list) and [type(side) for side in given] == [int] * 4
    if not whole or given[0] >= given[2] or given[1] >= given[3]:
        checks.wrong(name, f"fake_image_box is {str(given)[:40]}", "left, top, right, bottom")
        return None
    return BoxMask((given[0], given[1], given[2], given[3]))


def _words(caption: str, given: Any) -> tuple[Phrase, ...] | None:
    if given in (None, []):
        return None
    if not isinstance(given, list) or not all(type(place) is int for place in given):
        raise DataError(f"fake_text_pos is {str(given)[:40]}")
    return tokens_at(caption, given)
