"""From an entry of a benchmark's list to a `Record`, with all that is wrong about it."""

from __future__ import annotations

import ast
import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from papercommons.data.defects import Defect
from papercommons.errors import DataError, reason

from multi_edits.benchmark_masks import MAX_SIDE, PIE_SIZE, decode_mask, read_runs
from multi_edits.benchmark_parquet import ParquetImage
from multi_edits.benchmark_records import EDIT_TYPES, Record
from multi_edits.edits import Edit, apply_edits, derive_edits, edits_from_actions, locate_edits
from multi_edits.words import strip_brackets

MAX_TEXT = 20_000
MAX_PROMPT = 2_000


@dataclass(frozen=True)
class Entry:
    """One line of a benchmark's list, as it stands there.

    Attributes:
        id: of the record.
        category: folder or configuration.
        values: by the benchmark's names.
        image: where it is.
        size: H, W of the image, or why there is none.
    """

    id: str
    category: str
    values: Mapping[str, Any]
    image: Path | ParquetImage | None
    size: tuple[int, int] | str


@dataclass
class _Findings:
    record: str
    defects: list[Defect] = field(default_factory=list)

    def add(self, what: str, expected: str, *, fatal: bool = False) -> None:
        self.defects.append(Defect(self.record, what, expected, fatal))


def read_literal(text: str) -> Any:
    """Return the value that a text writes: JSON, or else a Python literal; nothing is evaluated.

    Args:
        text: at most 20,000 characters.

    Raises:
        DataError: longer, or neither.

    Example:
        >>> read_literal("{'dog': ['red']}")
        {'dog': ['red']}
    """
    if len(text) > MAX_TEXT:
        raise DataError(f"text of {len(text):,} characters; at most {MAX_TEXT:,} are read")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise DataError(f"neither JSON nor a Python literal ({reason(error)})") from error


def check_entry(entry: Entry, *, border: bool = True) -> tuple[Record, list[Defect]]:
    """Return the record of an entry, and its defects.

    Args:
        entry: from a list.
        border: whether the mask's outermost pixels count as edited.
    """
    values = entry.values
    record = Record(
        id=entry.id,
        category=entry.category,
        image=entry.image,
        source_prompt=_text(values, "source_prompt", "original_prompt"),
        target_prompt=_text(values, "target_prompt", "editing_prompt"),
        blended_words=_blended_words(values),
        border=border,
    )
    found = _Findings(record.key)
    if isinstance(entry.size, str):
        found.add(entry.size, "a readable image", fatal=True)
    mapping = _aspect_mapping(values, found)
    prompts = (("source", record.source), ("target", record.target))
    faulty = False
    for name, prompt in prompts:
        if not prompt or len(prompt) > MAX_PROMPT:
            what = f"the {name} prompt has {len(prompt):,} characters"
            found.add(what, f"words, at most {MAX_PROMPT:,} characters", fatal=True)
            faulty = True
    if not faulty:
        edits, types = _edits(record, values, mapping, found)
        record = replace(record, edits=edits, types=types)
        _check_attributes(edits, mapping, found)
    runs, size = _mask(entry, found)
    record = replace(record, aspect_mapping=mapping, mask_runs=runs, mask_size=size)
    return record, found.defects


def _text(values: Mapping[str, Any], *names: str) -> str:
    text = next((values[name] for name in names if name in values), "")
    if not isinstance(text, str):
        return ""
    return text.encode(errors="replace").decode()  # half a character is in no vocabulary


def _parsed(values: Mapping[str, Any], *names: str) -> Any:
    """Return the first of the named values, read if it is text; None if absent or empty."""
    value = next((values[name] for name in names if name in values), None)
    if isinstance(value, str):
        value = read_literal(value) if value.strip() else None
    return value or None


def _blended_words(values: Mapping[str, Any]) -> tuple[str, ...]:
    plain = values.get("blended_word")
    if isinstance(plain, str):  # of PIE-Bench: "cat dog"
        return (",".join(plain.split()),) if plain.split() else ()
    try:
        pairs = _parsed(values, "blended_words")
    except DataError:
        return ()
    return tuple(str(pair) for pair in pairs) if isinstance(pairs, (list, tuple)) else ()


def _aspect_mapping(values: Mapping[str, Any], found: _Findings) -> dict[str, tuple[str, ...]]:
    expected = "an object with a list of attributes per object"
    try:
        value = _parsed(values, "aspect_mapping", "obj-adj-pair") or {}
    except DataError as error:
        found.add(f"aspect_mapping: {error}", expected)
        return {}
    mapping = {}
    for name, attributes in value.items() if isinstance(value, Mapping) else [("", value)]:
        listed = [attributes] if isinstance(attributes, str) else list(_items(attributes))
        if not (isinstance(name, str) and name) or not all(isinstance(a, str) for a in listed):
            found.add(f"aspect_mapping: {name!r} is not such an entry", expected)
            continue
        mapping[name] = tuple(listed)
    return mapping


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _check_attributes(
    edits: Iterable[Edit], mapping: Mapping[str, tuple[str, ...]], found: _Findings
) -> None:
    edited = {_plain(word) for edit in edits for word in edit.name.split()}
    for name, attributes in mapping.items():
        for attribute in attributes:
            if not {_plain(word) for word in attribute.split()} <= edited:
                what = f"aspect_mapping gives {name!r} the attribute {attribute!r}"
                found.add(what, "an edit with these words")


def _edits(
    record: Record, values: Mapping[str, Any], mapping: Mapping[str, Any], found: _Findings
) -> tuple[tuple[Edit, ...], tuple[int, ...]]:
    """Return the edits and their types: those listed, or else what tells the prompts apart."""
    try:
        actions = _parsed(values, "edit_action", "editing")
    except DataError as error:
        found.add(f"edit_action: {error}", "phrases with position, edit_type, action", fatal=True)
        return (), ()
    if actions is None:
        edits = derive_edits(record.source_prompt, record.target_prompt)
        if not edits:
            found.add("no edits: the prompts are equal", "two different prompts", fatal=True)
        kind = _edit_type(values.get("editing_type_id", 0), "editing_type_id", found, lowest=0)
        return tuple(edits), (kind,) * len(edits)
    before = len(found.defects)
    read = [_read_action(record, *pair, mapping, found) for pair in _pairs_of(actions, found)]
    edits, types = [e for e, _ in filter(None, read)], [t for _, t in filter(None, read)]
    wrong = found.defects[before:]
    if any(defect.fatal for defect in wrong):
        return tuple(edits), tuple(types)
    try:
        edits = locate_edits(record.source, edits)
    except DataError as error:
        found.add(str(error), "edits that can be made together", fatal=True)
        return tuple(edits), tuple(types)
    made = apply_edits(record.source, edits).text
    agree = not any("target prompt" in defect.what for defect in wrong)
    if agree and made.casefold() != record.target.casefold():
        found.add(f"its edits give {made!r}", f"the target prompt {record.target!r}")
    return tuple(edits), tuple(types)


def _pairs_of(actions: Any, found: _Findings) -> list[tuple[str, Mapping[str, Any]]]:
    """Return phrase and action of an object, of a list of one-key objects, or of one of records."""
    parts = [actions] if isinstance(actions, Mapping) else list(_items(actions))
    pairs: list[tuple[str, Mapping[str, Any]]] = []
    for part in parts:
        for phrase, what in _phrases_of(part):
            if what is None:  # a column of a parquet file has the keys of all rows
                continue
            if isinstance(phrase, str) and phrase.split() and isinstance(what, Mapping):
                pairs.append((phrase, what))
            else:
                expected = "a phrase with position, edit_type and action"
                found.add(f"edit_action: {str(phrase)[:80]!r} is no edit", expected, fatal=True)
    return pairs


def _phrases_of(part: Any) -> list[tuple[Any, Any]]:
    if not isinstance(part, Mapping):
        return [(part, part)]
    named = isinstance(part.get("phrase"), str)
    return [(part["phrase"], part)] if named else list(part.items())


def _read_action(
    record: Record,
    phrase: str,
    what: Mapping[str, Any],
    mapping: Mapping[str, Any],
    found: _Findings,
) -> tuple[Edit, int] | None:
    """Return one edit, at its right position, and its type; None if it cannot be read."""
    position, action = _whole_number(what.get("position")), what.get("action")
    if position is None or position < 0 or not (isinstance(action, str) and action.split()):
        given = f"position {what.get('position')!r}, action {action!r}"
        found.add(f"edit {phrase!r} has {given}", "a number >= 0 and a phrase, + or -", fatal=True)
        return None
    kind = _edit_type(what.get("edit_type"), f"edit {phrase!r}: edit_type", found, lowest=1)
    phrase, action = strip_brackets(phrase), strip_brackets(action)
    (edit,) = edits_from_actions(
        {phrase: {"position": position, "action": action}}, mapping or None
    )
    source, target = record.source.split(), record.target.split()
    if edit.new and not _places(target, edit.new):
        found.add(f"edit {edit.new!r} is not in the target prompt", f"it in {record.target!r}")
    if not edit.new and len(_places(target, edit.old)) >= max(1, len(_places(source, edit.old))):
        found.add(f"{edit.old!r} is deleted and still in the target prompt", "a target without it")
    if not edit.old:
        if position > len(source):
            expected = f"at most {len(source)}, the words of the source prompt"
            found.add(f"edit {edit}: position {position} is out of range", expected, fatal=True)
        return edit, kind
    places = _places(source, edit.old)
    if not places:
        what_is = f"edit {edit}: {edit.old!r} is not in the source prompt"
        found.add(what_is, f"a phrase of {record.source!r}", fatal=True)
        return edit, kind
    first = min(places, key=lambda place: abs(place - position))
    if first != position:
        beyond = "is out of range" if position >= len(source) else "is not where the phrase begins"
        found.add(f"edit {edit}: position {position} {beyond}", f"{first}, which is taken")
    return _with_punctuation(replace(edit, position=first), source), kind


def _with_punctuation(edit: Edit, words: list[str]) -> Edit:
    """Return the edit of the prompt's own words: what leans on them, as a comma does, is kept."""
    old = words[edit.position : edit.position + len(edit.old.split())]
    text = " ".join(old)
    if not edit.new:
        return replace(edit, old=text)
    before = text[: len(text) - len(text.lstrip(string.punctuation))]
    after = text[len(text.rstrip(string.punctuation)) :]
    bare = edit.new.strip(string.punctuation) or edit.new
    new = f"{before}{bare}{after}" if before or after else edit.new
    return replace(edit, old=text, new=new)


def _places(words: list[str], phrase: str) -> list[int]:
    """Return where a phrase begins among words; case and the punctuation at words do not count."""
    wanted = [_plain(word) for word in phrase.split()]
    plain = [_plain(word) for word in words]
    count = len(wanted)
    return [k for k in range(len(plain) - count + 1) if plain[k : k + count] == wanted]


def _plain(word: str) -> str:
    return word.strip(string.punctuation).casefold() or word


def _whole_number(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        return int(value)
    return value if type(value) is int else None


def _edit_type(value: Any, name: str, found: _Findings, *, lowest: int) -> int:
    number = _whole_number(value)
    if number is None or not lowest <= number < len(EDIT_TYPES):
        found.add(f"{name} is {value!r}", f"a number from {lowest} to {len(EDIT_TYPES) - 1}")
        return 0
    return number


def _mask(entry: Entry, found: _Findings) -> tuple[tuple[int, ...] | None, tuple[int, int]]:
    """Return the mask's runs, None where they cannot be used, and its size."""
    size = _mask_size(entry.values.get("mask_size"), found)
    if (value := entry.values.get("mask")) is None:
        return None, size
    if isinstance(entry.size, tuple) and entry.size != size:
        height, width = entry.size
        expected = f"the mask's {size[0]} x {size[1]} (mask_size); the mask is left out"
        found.add(f"the image has {height} x {width} pixels", expected)
        return None, size
    try:
        runs = read_runs(value)
        decode_mask(runs, size)
    except DataError as error:
        found.add(str(error), "start, length, start, length, ...")
        return None, size
    try:
        decode_mask(runs, size, strict=True)
    except DataError as error:
        found.add(str(error), "runs inside the image; it is cut off there")
    return runs, size


def _mask_size(value: Any, found: _Findings) -> tuple[int, int]:
    if value is None:
        return PIE_SIZE
    fine = isinstance(value, (list, tuple)) and len(value) == 2
    if fine and all(type(side) is int and 0 < side <= MAX_SIDE for side in value):
        return value[0], value[1]
    found.add(f"mask_size is {str(value)[:80]}", "[height, width]; 512 x 512 is taken")
    return PIE_SIZE
