"""The neutral list of pairs: one JSON object a line. Needs no torch.

Keys, of which image and caption are needed::

    {"image": path, "caption": text, "label": 0 | 1 | null,
     "mask": path | segmentation of COCO | null, "words": [[start, end], ...] | [word, ...] | null,
     "id": text, "kind": text, "edited": "none" | "caption" | "image" | "both",
     "split": "train" | "val" | "test", "source": text, "changed": as mask, "true_caption": text}

Label 1 is inconsistent; `d_tiil.records.Record` says what the others mean. Places of words are
characters of the caption, the end one past the last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from papercommons.errors import DataError
from papercommons.files import write_text

from d_tiil.phrases import Phrase
from d_tiil.reading import read_lines
from d_tiil.record_checks import Checks
from d_tiil.records import EDITED, Edited, Label, Record
from d_tiil.word_spans import read_words

PAIRS = "pairs.jsonl"
_NUMBERS: dict[Label, int | None] = {"consistent": 0, "inconsistent": 1, "unknown": None}
_KNOWN = frozenset({"image", "caption", "label", "mask", "words", "id", "kind", "edited"})
_KNOWN |= {"split", "source", "changed", "true_caption"}


def read_pairs(path: Path, checks: Checks) -> None:
    """Read a list into `checks`.

    Args:
        path: of the list; paths in it begin at its folder.
        checks: gets records and defects.

    Raises:
        DataError: the list cannot be read, or no line has the keys that are needed.
    """
    rows = list(read_lines(path))
    keys = {key for _, row in rows if isinstance(row, dict) for key in row}
    if rows and not {"image", "caption"} <= keys:
        raise DataError(
            f"{path}: lines need the keys image and caption; found "
            f"{', '.join(sorted(keys)[:20]) or 'none'}"
        )
    for number, row in rows:
        if isinstance(row, dict):
            _read_row(path.parent, f"line {number}", row, checks)
        else:
            checks.wrong(f"line {number}", "no JSON object", '{"image": ..., ...}', fatal=True)


def _read_row(root: Path, place: str, row: Mapping[str, Any], checks: Checks) -> None:
    said = row.get("id")
    name = checks.unique(place if said is None or not str(said).strip() else str(said))
    if strange := sorted(set(row) - _KNOWN):
        checks.wrong(name, f"unknown keys {', '.join(strange)[:60]}", "those of the layout")
    image = checks.image(name, root, row.get("image"))
    caption = checks.caption(name, row.get("caption"))
    label = checks.label(name, row.get("label"))
    if image is None or caption is None or label is None:
        return
    mask = checks.mask_given(name, root, row.get("mask"))
    changed = checks.mask_given(name, root, row.get("changed"))
    checks.records.append(
        Record(
            name,
            image,
            caption,
            label,
            checks.mask(name, mask, image, label),
            checks.words(name, label, partial(_words, caption, row.get("words"))),
            kind=_text(row.get("kind")),
            edited=_edited(name, row.get("edited"), checks),
            split=checks.split(name, row.get("split")),
            source=_text(row.get("source")) or str(row["image"]),
            changed=checks.mask(name, changed, image, "unknown"),
            true_caption=_text(row.get("true_caption")),
        )
    )


def _words(caption: str, given: Any) -> tuple[Phrase, ...] | None:
    return None if given is None else read_words(caption, given)


def _edited(name: str, given: Any, checks: Checks) -> Edited:
    for known in EDITED:
        if _text(given) == known:
            return known
    checks.wrong(name, f"edited is {str(given)[:20]!r}", ", ".join(EDITED[1:]))
    return ""


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def as_row(
    record: Record, *, image: str, mask: str | None = None, changed: str | None = None
) -> dict[str, Any]:
    """Return the line of a record as plain values.

    Args:
        record: what is written.
        image: path of its image, relative to the list.
        mask: path of its mask.
        changed: path of the mask of changed pixels.
    """
    words = record.words
    return {
        "id": record.name,
        "image": image,
        "caption": record.caption,
        "label": _NUMBERS[record.label],
        "mask": mask,
        "words": None if words is None else [[word.start, word.end] for word in words],
        "kind": record.kind,
        "edited": record.edited,
        "split": record.split,
        "source": record.source,
        "changed": changed,
        "true_caption": record.true_caption,
    }


def write_pairs(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a list, whole or not at all.

    Args:
        path: of the list.
        rows: of `as_row`.
    """
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    write_text(path, "".join(f"{line}\n" for line in lines))
