"""Edits of a prompt: what changes where, derived from two prompts or read from JSON."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from papercommons.errors import DataError

from multi_edits.words import find_phrase, strip_brackets

_FIELDS = ("old", "new", "position", "object", "strength")
_MOST_PAIRINGS = 20_000


@dataclass(frozen=True)
class Edit:
    """One change of the source prompt: a swap, or an addition or deletion where a phrase is empty.

    Attributes:
        old: phrase of the source prompt; "" for an addition.
        new: phrase that takes its place; "" for a deletion.
        position: 0-based word of the source prompt where `old` begins, or before which `new` is
            inserted.
        object: the object whose aspect this is; edits of one object stay together. "" means that
            the edit belongs to no object and is global; None that nothing is known.
        strength: how far the edit goes, >= 0; 0 leaves it out, 1 is the plain method.
    """

    old: str
    new: str
    position: int
    object: str | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not (self.old.split() or self.new.split()):
            raise ValueError("an edit needs an old phrase, a new one or both")
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise ValueError(f"strength must be a number >= 0, got {self.strength}")
        if self.position < 0:
            raise ValueError(f"position must be >= 0, got {self.position}")

    @property
    def action(self) -> str:
        """``swap``, ``add`` or ``delete``."""
        return "swap" if self.old and self.new else "add" if self.new else "delete"

    @property
    def name(self) -> str:
        """The new phrase, or the deleted one."""
        return self.new or self.old

    def __str__(self) -> str:
        if self.action == "swap":
            return f"{self.old} -> {self.new}"
        return f"+ {self.new}" if self.new else f"- {self.old}"


@dataclass(frozen=True)
class EditedPrompt:
    """A prompt with some edits made.

    Attributes:
        words: of the prompt.
        places: for each edit, made or not, the first word and the number of words of its new
            phrase (made) or old one (not made) in this prompt.
    """

    words: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        """The prompt."""
        return " ".join(self.words)


def derive_edits(source: str, target: str) -> list[Edit]:
    """Return the edits that turn one prompt into another, by aligning their words.

    Words of equal number in the same place are swapped one by one, other runs as a whole. Square
    brackets around phrases of the target say where one aspect ends and the next begins.

    Args:
        source: prompt of the image, brackets are ignored.
        target: prompt of the wanted image.

    Returns:
        In the order of their positions; empty if the prompts are equal.

    Raises:
        DataError: a prompt is empty.

    Example:
        >>> [str(edit) for edit in derive_edits("a cat on a chair", "a dog on a red chair")]
        ['cat -> dog', '+ red']
    """
    from multi_edits.alignment import align

    old_words, (new_words, phrases) = strip_brackets(source).split(), _bracketed(target)
    if not old_words or not new_words:
        raise DataError("the source and the target prompt must have words")
    partner = align([w.casefold() for w in old_words], [w.casefold() for w in new_words])
    matched = [(s, t) for t, s in enumerate(partner) if s >= 0]
    edits: list[Edit] = []
    s0 = t0 = 0
    for s1, t1 in [*matched, (len(old_words), len(new_words))]:
        parts = [
            " ".join(new_words[t] for t in run)
            for _, run in itertools.groupby(range(t0, t1), key=lambda t: phrases[t])
        ]
        edits += _pair(old_words[s0:s1], parts, s0)
        s0, t0 = s1 + 1, t1 + 1
    return edits


def _bracketed(prompt: str) -> tuple[list[str], list[int]]:
    """Return words and the number of the phrase that each belongs to, by the brackets."""
    words: list[str] = []
    phrases: list[int] = []
    phrase = 0
    for part in prompt.replace("][", "] [").split():
        phrase += "[" in part
        word = part.replace("[", "").replace("]", "")
        if word:
            words.append(word)
            phrases.append(phrase)
        phrase += "]" in part
    return words, phrases


def _pair(old: list[str], new: list[str], position: int) -> list[Edit]:
    """Return the edits of one run of differing words."""
    if not new:
        return [Edit(" ".join(old), "", position)] if old else []
    if len(new) == 1 and len(new[0].split()) == len(old):
        new = new[0].split()
    if len(new) < len(old):
        old = [*old[: len(new) - 1], " ".join(old[len(new) - 1 :])]
    swapped = dict(zip(_best_places(old, new), old, strict=True))
    edits = []
    for k, phrase in enumerate(new):
        edits.append(Edit(swapped.get(k, ""), phrase, position))
        position += len(swapped.get(k, "").split())
    return edits


def _best_places(old: list[str], new: list[str]) -> tuple[int, ...]:
    """Return which new phrases take the old words' places: the alike, then single words."""
    if math.comb(len(new), len(old)) > _MOST_PAIRINGS:
        return tuple(range(len(old)))

    def likeness(places: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        pairs = [(word, new[k]) for word, k in zip(old, places, strict=True)]
        alike = sum(difflib.SequenceMatcher(None, a, b).ratio() for a, b in pairs)
        return alike + sum(0.5 for a, b in pairs if len(a.split()) == len(b.split())), places

    return max(itertools.combinations(range(len(new)), len(old)), key=likeness)


def locate_edits(source: str, edits: Sequence[Edit]) -> list[Edit]:
    """Return edits with the positions at which their old phrases really begin.

    Args:
        source: the prompt, without brackets.
        edits: a phrase that is not at its position is looked for nearby.

    Raises:
        DataError: an old phrase is not in the prompt, an insertion lies beyond its end, or two
            edits change the same word.
    """
    words = source.split()
    located, taken = [], set[int]()
    for edit in edits:
        count = len(edit.old.split())
        if count == 0:
            if edit.position > len(words):
                raise DataError(
                    f"{edit}: position {edit.position} is beyond the prompt of {len(words)} words"
                )
            located.append(edit)
            continue
        first = find_phrase(words, edit.old.split(), near=edit.position)
        span = set(range(first, first + count))
        if span & taken:
            raise DataError(f"{edit}: another edit changes {edit.old!r} too; make them one edit")
        taken |= span
        located.append(replace(edit, position=first))
    for edit in located:
        spans = [(e.position, e.position + len(e.old.split())) for e in located if e.old]
        if not edit.old and any(first < edit.position < end for first, end in spans):
            raise DataError(f"{edit}: would be inserted inside a phrase that is replaced")
    return located


def apply_edits(
    source: str, edits: Sequence[Edit], made: Collection[int] | None = None
) -> EditedPrompt:
    """Return the prompt with some edits made, word by word.

    Args:
        source: the prompt, without brackets.
        edits: from `derive_edits` or `locate_edits`; all positions are those of the source.
        made: indices of the edits to make; all if not given.

    Example:
        >>> edits = derive_edits("a cat on a chair", "a dog on a red chair")
        >>> apply_edits("a cat on a chair", edits, made=[1]).text
        'a cat on a red chair'
    """
    chosen = set(range(len(edits)) if made is None else made)
    words, result = source.split(), list[str]()
    places = [(0, 0)] * len(edits)
    position = 0
    while position <= len(words):
        here = [k for k, edit in enumerate(edits) if edit.position == position]
        for k in (k for k in here if not edits[k].old):
            phrase = edits[k].new.split() if k in chosen else []
            places[k] = (len(result), len(phrase))
            result += phrase
        changed = next((k for k in here if edits[k].old), None)
        if changed is None:
            result += words[position : position + 1]
            position += 1
            continue
        edit = edits[changed]
        count = len(edit.old.split())
        old = words[position : position + count]
        phrase = edit.new.split() if changed in chosen else old
        places[changed] = (len(result), len(phrase))
        result += phrase
        position += count
    return EditedPrompt(tuple(result), tuple(places))


def edits_to_json(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """Return edits as plain values that `edits_from_json` reads."""
    return [asdict(edit) for edit in edits]


def edits_from_json(value: Any) -> list[Edit]:
    """Return edits from plain values: a list of objects with the fields of `Edit`.

    Args:
        value: what ``json.load`` gave; old, new, object and strength may be left out, and
            position for what is not an addition.

    Raises:
        DataError: a value is not of this form.
    """
    if not isinstance(value, list) or not value:
        raise DataError("edits must be a list of objects with old, new and position")
    edits = []
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, Mapping) or not set(entry) <= set(_FIELDS):
            raise DataError(f"edit {number}: expected an object with {', '.join(_FIELDS)}")
        given = {"old": "", "new": "", "object": None, "strength": 1.0, **entry}
        texts = [given["old"], given["new"], given["object"] or ""]
        place = given.get("position", 0 if given["old"] else None)
        if not all(isinstance(text, str) for text in texts) or type(place) is not int:
            raise DataError(f"edit {number}: old, new and object are text, position is a number")
        if type(given["strength"]) not in (int, float):
            raise DataError(f"edit {number}: strength must be a number")
        try:
            edits.append(Edit(**{**given, "position": place}))
        except ValueError as error:
            raise DataError(f"edit {number}: {error}") from error
    return edits


def edits_from_actions(
    actions: Mapping[str, Mapping[str, Any]], mapping: Mapping[str, Sequence[str]] | None = None
) -> list[Edit]:
    """Return edits from the form of PIE-Bench++.

    Args:
        actions: phrase -> position, edit_type and action: "+" inserts the phrase before the word at
            the position, "-" removes it, anything else is the phrase that it replaces.
        mapping: object -> its attributes (``aspect_mapping``); an edit of no object is global.

    Raises:
        DataError: a value is not of this form.
    """
    edits = []
    for phrase, what in actions.items():
        try:
            action, position = str(what["action"]), int(what["position"])
            old, new = {"+": ("", phrase), "-": (phrase, "")}.get(action, (action, phrase))
            edits.append(Edit(old, new, position, _object_of(phrase, mapping)))
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(f"edit {phrase!r}: expected position and action") from error
    return edits


def _object_of(phrase: str, mapping: Mapping[str, Sequence[str]] | None) -> str | None:
    if mapping is None:
        return None
    words = phrase.split()
    for name, attributes in mapping.items():
        if phrase == name or phrase in attributes:
            return name
    shared = [name for name in mapping if set(name.split()) & set(words)]
    return shared[0] if shared else ""
