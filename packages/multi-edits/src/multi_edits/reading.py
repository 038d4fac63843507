"""What the commands are given in words and files: edits, strengths, masks, groups; needs no torch.

In files and on the command line edits and branches are numbered from 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from papercommons.errors import DataError, nearest, reason

from multi_edits.edits import (
    Edit,
    derive_edits,
    edits_from_actions,
    edits_from_json,
    locate_edits,
)
from multi_edits.words import strip_brackets

if TYPE_CHECKING:
    import numpy as np

KINDS = ("rigid", "non-rigid", "global")
MOST_BYTES = 20_000_000


class GivenGroup(NamedTuple):
    """A group of edits from a file.

    Attributes:
        kind: rigid, non-rigid or global.
        edits: indices, from 0.
        overlap: as it was found, if it was.
        area: likewise.
    """

    kind: str
    edits: tuple[int, ...]
    overlap: float | None = None
    area: float = 0.0


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: it is missing, too large or not JSON.
    """
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: has more than {MOST_BYTES:,} bytes")
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not readable JSON ({reason(error)})") from None


def read_edits(path: str | Path) -> list[Edit]:
    """Return the edits of a file.

    Args:
        path: JSON: a list of objects with old, new, position, object and strength; such a list
            under ``edits``; the result.json of an earlier run; or a record of PIE-Bench++.

    Raises:
        DataError: it is not of this form.
    """
    value = read_json(path)
    try:
        if isinstance(value, Mapping):
            found = value.get("metrics")
            inner = found if isinstance(found, Mapping) and "edits" in found else value
            if "edits" not in inner:
                return _from_record(value)
            value = inner["edits"]
        return edits_from_json(value)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _from_record(record: Mapping[str, Any]) -> list[Edit]:
    actions, mapping = record.get("edit_action", record), record.get("aspect_mapping")
    entries = list(actions.values()) if isinstance(actions, Mapping) else []
    if not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise DataError("expected a list of edits, or edit_action: phrase -> position, action")
    lists = [] if mapping is None else list(getattr(mapping, "values", lambda: [None])())
    if not all(isinstance(words, list) for words in lists):
        raise DataError("aspect_mapping must be object -> list of its attributes")
    return edits_from_actions(actions, mapping)


def wanted_edits(
    source: str, target: str | None, edits: str | None, strength: Sequence[str] = ()
) -> tuple[Edit, ...]:
    """Return the edits that a command is asked for, each at its place in the source prompt.

    Args:
        source: prompt of the image.
        target: prompt of the result, or None.
        edits: file, see `read_edits`, or None.
        strength: as ``EDIT=NUMBER``, see `find_edit`.

    Raises:
        DataError: there are none, or they do not fit the prompt.
        ValueError: neither or both of `target` and `edits` are given.
    """
    if (target is None) == (edits is None):
        raise ValueError("give either --target, a prompt, or --edits, a file")
    plain = strip_brackets(source)
    if not plain:
        raise DataError("--source is empty; say in words what the image shows")
    if target is not None and not strip_brackets(target):
        raise DataError("--target is empty; say in words what the result shall show")
    same = target is not None and strip_brackets(target).casefold() == plain.casefold()
    given = (
        [] if same else derive_edits(plain, target or "") if edits is None else read_edits(edits)
    )
    if not given:
        raise DataError("no edits: --source and --target say the same")
    wanted = locate_edits(plain, given)
    for word, value in assignments(strength, "--strength"):
        index = find_edit(wanted, word)
        try:
            wanted[index] = replace(wanted[index], strength=float(value))
        except ValueError:
            raise ValueError(f"--strength {word}: must be a number >= 0, got {value!r}") from None
    if not any(edit.strength > 0 for edit in wanted):
        raise DataError("no edits: all have strength 0")
    return tuple(wanted)


def assignments(given: Sequence[str], option: str) -> list[tuple[str, str]]:
    """Return the two sides of each ``EDIT=VALUE``.

    Args:
        given: as written on the command line.
        option: named in errors, e.g. ``--mask``.

    Raises:
        ValueError: one is not of this form.
    """
    pairs = []
    for part in given:
        word, equals, value = part.rpartition("=")
        if not equals or not word.strip() or not value.strip():
            raise ValueError(f"{option} takes EDIT=VALUE, for example dog=..., got {part!r}")
        pairs.append((word.strip(), value.strip()))
    return pairs


def find_edit(edits: Sequence[Edit], word: str) -> int:
    """Return the index of the edit that is meant by its number from 1, or by one of its phrases.

    Args:
        edits: all of them.
        word: a number, an old phrase or a new one.

    Raises:
        DataError: there is none, or more than one.
    """
    if word.isascii() and word.isdigit():
        if not 1 <= int(word) <= len(edits):
            raise DataError(f"there is no edit {word}: {_listed(edits)}")
        return int(word) - 1
    low = " ".join(word.split()).casefold()
    found = [
        k
        for k, edit in enumerate(edits)
        if low in {name.casefold() for name in (edit.new, edit.old, str(edit)) if name}
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{word!r} may be several edits: {_listed(edits)}; give its number")
    raise DataError(f"no edit is called {word!r}: {_listed(edits)}{_close(word, edits)}")


def _close(word: str, edits: Sequence[Edit]) -> str:
    return nearest(word, [name for e in edits for name in (e.new, e.old) if name])


def _listed(edits: Sequence[Edit]) -> str:
    return ", ".join(f"{k} ({edit})" for k, edit in enumerate(edits, 1))


def read_masks(
    given: Sequence[str], edits: Sequence[Edit], size: tuple[int, int]
) -> dict[int, np.ndarray]:
    """Return masks of edits by index, bool, (H, W); a pixel above 127 may change.

    Args:
        given: as ``EDIT=FILE``.
        edits: that there are.
        size: width and height of the image.

    Raises:
        DataError: a file is no picture of that size, or marks nothing, or no such edit.
        ValueError: one is not of this form, or an edit has two.
    """
    import numpy as np
    from papercommons.data.images import read_image

    masks: dict[int, np.ndarray] = {}
    for word, path in assignments(given, "--mask"):
        index = find_edit(edits, word)
        if index in masks:
            raise ValueError(f"--mask: edit {index + 1} ({edits[index]}) has two masks; make one")
        picture = read_image(path)
        if picture.size != size:
            raise DataError(
                f"{path}: the mask has {picture.width} x {picture.height} pixels and the image "
                f"{size[0]} x {size[1]}; they must agree"
            )
        mask = np.asarray(picture.convert("L")) > 127
        if not mask.any():
            raise DataError(f"{path}: marks nothing; what may change must be white")
        masks[index] = mask
    return masks


def read_groups(path: str | Path, edits: Sequence[Edit]) -> list[GivenGroup]:
    """Return the groups of a file: those of an earlier result, or made up.

    Args:
        path: JSON: a list of objects with kind and edits (numbers from 1); or the result.json of
            an earlier run, or its folder.
        edits: that there are; those of strength 0 are left out of the groups.

    Raises:
        DataError: it is not of this form, or the groups do not hold each edit once.
    """
    file = Path(path) / "result.json" if Path(path).is_dir() else Path(path)
    value = read_json(file)
    if isinstance(value, Mapping):
        value = value.get("metrics", value)
        value = value.get("groups") if isinstance(value, Mapping) else None
    if not isinstance(value, list):
        raise DataError(f"{file}: expected a list of groups, each with kind and edits")
    groups = []
    for number, entry in enumerate(value, 1):
        kind = entry.get("kind") if isinstance(entry, Mapping) else None
        if kind not in KINDS:
            raise DataError(f"{file}: group {number}: kind must be {', '.join(KINDS)}")
        members = entry.get("edits")
        if not isinstance(members, list) or any(type(member) is not int for member in members):
            raise DataError(f"{file}: group {number}: edits must be a list of numbers, from 1")
        overlap, area = entry.get("overlap"), entry.get("area", 0.0)
        plain = all(type(value) in (int, float) for value in (overlap or 0.0, area))
        if not plain:
            raise DataError(f"{file}: group {number}: overlap and area must be numbers")
        groups.append(GivenGroup(kind, tuple(member - 1 for member in members), overlap, area))
    listed = sorted(edit for group in groups for edit in group.edits)
    active = [k for k, edit in enumerate(edits) if edit.strength > 0]
    if [edit for edit in listed if edit in active] != active or not {*listed} <= {
        *range(len(edits))
    }:
        numbers = ", ".join(str(k + 1) for k in listed)
        raise DataError(
            f"{file}: its groups hold the edits {numbers}, and there are {_listed(edits)}; each "
            "must be in one group"
        )
    kept = (group._replace(edits=tuple(k for k in group.edits if k in active)) for group in groups)
    return [_of_one_strength(group, edits, file) for group in kept if group.edits]


def _of_one_strength(group: GivenGroup, edits: Sequence[Edit], file: Path) -> GivenGroup:
    if len({edits[k].strength for k in group.edits}) > 1:
        raise DataError(
            f"{file}: a group has edits of several strengths "
            f"({', '.join(f'{edits[k]}: {edits[k].strength:g}' for k in group.edits)}); give them "
            "one, or leave out --groups"
        )
    return group
