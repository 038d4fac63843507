"""The TIIL data set: news pictures and captions, consistent and edited. Needs no torch.

As a public reader has it: consistent.json and inconsistent.json, each
``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption", ...}]}``. The names of
the keys of masks and inconsistent words are not published: those of `MASK_KEYS` and `WORD_KEYS`
are looked for, others can be named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from papercommons.errors import DataError

from d_tiil.phrases import Phrase
from d_tiil.reading import read_json
from d_tiil.record_checks import Checks
from d_tiil.records import CocoMask, Label, Mask, Record
from d_tiil.word_spans import read_words

LISTS: dict[Label, str] = {"consistent": "consistent.json", "inconsistent": "inconsistent.json"}
MASK_KEYS = ("segmentation", "mask", "mask_path", "mask_file", "mask_name")
WORD_KEYS = ("word", "new_word", "fake_word", "inconsistent_word")
NONE = "none"


class _Keys(NamedTuple):
    """Names of keys; None where the set has none."""

    mask: str | None
    word: str | None


def read_tiil(
    root: Path, checks: Checks, *, mask_key: str | None = None, word_key: str | None = None
) -> None:
    """Read a folder into `checks`.

    Annotations of one image with one caption are one record, whose masks are joined.

    Args:
        root: the folder; one of the two lists may be absent.
        checks: gets records and defects.
        mask_key: key of the masks, or none; looked for if not given.
        word_key: key of the inconsistent words, or none; looked for if not given.

    Raises:
        DataError: no list, an unreadable one, or masks or words under no known key.
    """
    files = {label: root / name for label, name in LISTS.items() if (root / name).is_file()}
    if not files:
        raise DataError(f"{root}: no {' and no '.join(LISTS.values())}")
    for label, file in files.items():
        images, annotations = _lists(file)
        keys = _Keys(None, None)
        if label == "inconsistent":
            keys = _Keys(
                _find(file, annotations, "masks", mask_key, MASK_KEYS),
                _find(file, annotations, "inconsistent words", word_key, WORD_KEYS),
            )
        else:
            held = _held(annotations)
            keys = _Keys(next((key for key in MASK_KEYS if key in held), None), None)
        _read_list(root, label, images, annotations, keys, checks)


def _lists(file: Path) -> tuple[list[Any], list[Any]]:
    held = read_json(file)
    found = [held.get(name) if isinstance(held, dict) else None for name in _NAMES]
    if not all(isinstance(part, list) for part in found):
        keys = ", ".join(sorted(held)[:20]) if isinstance(held, dict) else type(held).__name__
        raise DataError(f"{file}: expected the lists images and annotations; found {keys}")
    return found[0] or [], found[1] or []


_NAMES = ("images", "annotations")


def _held(annotations: Iterable[Any]) -> set[str]:
    return {key for entry in annotations if isinstance(entry, dict) for key in entry}


def _find(
    file: Path, annotations: Sequence[Any], what: str, given: str | None, known: Sequence[str]
) -> str | None:
    """Return the key of something, by what is given or known."""
    if given == NONE:
        return None
    held = _held(annotations)
    for key in known if given is None else (given,):
        if key in held:
            return key
    wanted = ", ".join(known) if given is None else given
    name = "--mask-key" if what == "masks" else "--word-key"
    raise DataError(
        f"{file}: no annotation has {what} under {wanted}; keys found: "
        f"{', '.join(sorted(held)[:40])}; name the right one with {name}, or {NONE}"
    )


def _read_list(
    root: Path,
    label: Label,
    images: Sequence[Any],
    annotations: Sequence[Any],
    keys: _Keys,
    checks: Checks,
) -> None:
    by_id: dict[Any, Mapping[str, Any]] = {}
    for number, image in enumerate(images, 1):
        place = f"{label}/image {number}"
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            checks.wrong(place, "no id", "an object with id and file_name", fatal=True)
        elif image["id"] in by_id:
            checks.wrong(place, f"the id {image['id']} is there twice", "unique ids", fatal=True)
        else:
            by_id[image["id"]] = image
    pairs: dict[tuple[Any, str], list[Mapping[str, Any]]] = {}
    for number, entry in enumerate(annotations, 1):
        place = f"{label}/annotation {number}"
        key = entry.get("image_id") if isinstance(entry, dict) else None
        if not isinstance(key, int | str) or key not in by_id:
            what = f"image_id {str(key)[:20]!r} is that of no image"
            checks.wrong(place, what, "the id of an image", fatal=True)
        else:
            pairs.setdefault((key, str(entry.get("caption") or "")), []).append(entry)
    for key in by_id.keys() - {key for key, _ in pairs}:
        checks.wrong(f"{label}/{key}", "the image has no annotation", "one with its id")
    for (key, _), entries in pairs.items():
        _read_pair(root, label, f"{label}/{key}", by_id[key], entries, keys, checks)


def _read_pair(
    root: Path,
    label: Label,
    name: str,
    image: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    keys: _Keys,
    checks: Checks,
) -> None:
    name = checks.unique(name, expected=False)
    path = checks.image(name, root, image.get("file_name"))
    caption = checks.caption(name, entries[0].get("caption"))
    if path is None or caption is None:
        return
    if checks.depth != "paths":
        stated, own = (image.get("height"), image.get("width")), checks.size(path)
        if None not in stated and stated != own:
            what = f"the list says {stated[0]} x {stated[1]} pixels"
            checks.wrong(name, what, f"the image's {own[0]} x {own[1]}")
    mask = None if keys.mask is None else _mask(name, root, entries, keys.mask, checks)
    read = partial(_words, caption, entries, keys.word)
    checks.records.append(
        Record(
            name,
            path,
            caption,
            label,
            checks.mask(name, mask, path, label, needed=keys.mask is not None),
            checks.words(name, label, read, needed=keys.word is not None),
            kind=str(entries[0].get("kind") or entries[0].get("type") or ""),
            edited="none" if label == "consistent" else "",
            split=checks.split(name, entries[0].get("split") or image.get("split")),
            source=str(image["file_name"]),
        )
    )


def _mask(
    name: str, root: Path, entries: Sequence[Mapping[str, Any]], key: str, checks: Checks
) -> Mask | None:
    """Return the mask of a pair's annotations: one file, or the union of polygons and runs."""
    given = [checks.mask_given(name, root, entry.get(key)) for entry in entries]
    found = [mask for mask in given if mask is not None]
    parts = [part for mask in found if isinstance(mask, CocoMask) for part in mask.parts]
    files = [mask for mask in dict.fromkeys(m for m in found if not isinstance(m, CocoMask))]
    if len(files) + bool(parts) > 1:
        checks.wrong(name, "several masks that are files", "one file, or polygons and runs")
        return None
    return CocoMask(tuple(parts)) if parts else next(iter(files), None)


def _words(
    caption: str, entries: Sequence[Mapping[str, Any]], key: str | None
) -> tuple[Phrase, ...] | None:
    """Return the words of a pair's annotations; None where none has any."""
    given = [] if key is None else [entry[key] for entry in entries if entry.get(key)]
    if not given:
        return None
    found = {span for words in given for span in read_words(caption, words)}
    return tuple(sorted(found, key=lambda span: span.start))
