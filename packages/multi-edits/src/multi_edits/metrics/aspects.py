"""Which of the asked edits an image shows: by CLIP, and by asking a model that sees."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from papercommons.errors import DataError
from torch import Tensor

from multi_edits.benchmark_records import Record
from multi_edits.edits import Edit, apply_edits, locate_edits

Scorer = Callable[[Any, str], str]
"""A model that sees: takes a PIL image and a question, gives its answer as text."""

MAX_ANSWER = 10_000
_LIST = re.compile(r"\[[^\[\]]*\]")
_BRACKETED = re.compile(r"\[[^\[\]]+\]")


def reverted_prompts(record: Record) -> tuple[str, list[str]]:
    """Return the prompt with all edits, and for each edit that with all the others.

    Both follow from the source prompt and the edits, so that they differ in one aspect even where
    the benchmark's target prompt says more than its edits.

    Args:
        record: of which ``source`` and ``edits`` count.

    Raises:
        DataError: an edit is not in the source prompt.
    """
    edits = locate_edits(record.source, record.edits)
    every = range(len(edits))
    reverted = [apply_edits(record.source, edits, [j for j in every if j != k]).text for k in every]
    return apply_edits(record.source, edits).text, reverted


def kept_prompt(record: Record) -> str:
    """Return the source prompt without the phrases that are edited; "" if nothing is left.

    Args:
        record: see `reverted_prompts`.

    Raises:
        DataError: an edit is not in the source prompt.
    """
    edits = locate_edits(record.source, record.edits)
    edited = {k for e in edits for k in range(e.position, e.position + len(e.old.split()))}
    return " ".join(word for k, word in enumerate(record.source.split()) if k not in edited)


def aspect_accuracy(edits: Sequence[Edit], whole: Tensor, reverted: Tensor) -> float:
    """Return AspAcc-CLIP: the share of edits without which the prompt fits the image worse.

    Where the edit is of an object whose attributes are edited too, it counts only if they do.

    Args:
        edits: k of them, k >= 1.
        whole: similarity of the image and the prompt with all edits, scalar.
        reverted: similarity of the image and each of `reverted_prompts`, shape (k,).

    Returns:
        In [0, 1].

    Raises:
        ValueError: another number of similarities than edits.
    """
    if not edits or reverted.shape != (len(edits),):
        raise ValueError(f"{len(edits)} edits need as many values, got {tuple(reverted.shape)}")
    shown = (whole > reverted).tolist()
    counted = [
        all(shown[j] for j in _same_object(edits, k)) if _is_object(edit) else shown[k]
        for k, edit in enumerate(edits)
    ]
    return sum(counted) / len(edits)


def _is_object(edit: Edit) -> bool:
    """Return whether the edit makes its object, rather than an attribute of it."""
    return bool(edit.object) and set((edit.object or "").split()) <= set(edit.name.split())


def _same_object(edits: Sequence[Edit], number: int) -> list[int]:
    return [k for k, edit in enumerate(edits) if edit.object == edits[number].object]


def vlm_question(record: Record) -> tuple[str, int]:
    """Return what to ask a model that sees, and how many elements it is asked about.

    Args:
        record: the brackets of its target prompt say what to ask for; without brackets, the new
            phrases of its edits do. Deleted phrases are in neither.

    Returns:
        The question, and 0 if there is nothing to ask for.

    Raises:
        DataError: an edit is not in the source prompt.
    """
    prompt = record.target_prompt
    if not _BRACKETED.search(prompt):
        prompt = _bracket(record)
    count = len(_BRACKETED.findall(prompt))
    return (
        f"Does the image show each of the {count} elements in square brackets in this "
        f'description: "{prompt}"? Return a list of {count} numbers and nothing else, in the order '
        "of the brackets: 1 for an element that the image shows, 0 for one that it does not.",
        count,
    )


def _bracket(record: Record) -> str:
    edited = apply_edits(record.source, locate_edits(record.source, record.edits))
    words = list(edited.words)
    for (first, count), edit in zip(edited.places, record.edits, strict=True):
        if edit.new:
            words[first] = f"[{words[first]}"
            words[first + count - 1] += "]"
    return " ".join(words)


def list_scores(answer: str, count: int) -> list[int]:
    """Return the zeros and ones of an answer that holds one list of them.

    Args:
        answer: may have words around the list.
        count: how many are expected.

    Raises:
        DataError: no list, several, other values, or another number of them.

    Example:
        >>> list_scores("Here it is: [1, 0]", 2)
        [1, 0]
    """
    lists = _LIST.findall(answer) if len(answer) <= MAX_ANSWER else []
    shown = answer if len(answer) <= 120 else f"{answer[:120]}..."
    if len(lists) != 1:
        raise DataError(f"the answer {shown!r} has {len(lists)} lists; expected one of 0 and 1")
    try:
        scores = json.loads(lists[0])
    except ValueError:
        scores = None
    if scores is None or not all(type(s) is int and s in (0, 1) for s in scores):
        raise DataError(f"the answer {shown!r} has other values than 0 and 1")
    if len(scores) != count:
        raise DataError(f"the answer {shown!r} has {len(scores)} values; expected {count}")
    return list(scores)


def asked_accuracy(scorer: Scorer, edited: Any, record: Record) -> float | None:
    """Return the share of the elements asked for that a model sees in the image.

    Args:
        scorer: the model.
        edited: PIL image.
        record: see `vlm_question`.

    Returns:
        In [0, 1]; None if there is nothing to ask for.

    Raises:
        DataError: its answer is not a list of as many zeros and ones.
    """
    question, count = vlm_question(record)
    if count == 0:
        return None
    return sum(list_scores(scorer(edited, question), count)) / count
