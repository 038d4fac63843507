"""The JSON answer: its schema, and what is kept of an answer that may not follow it; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from papercommons.errors import one_line

from vlm_hv.parsing import Decision, parse_decision, read_json

Box = tuple[float, float, float, float]
_MOST = 100  # findings of one answer
_BOX = {
    "anyOf": [
        {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
        {"type": "null"},
    ]
}
_FINDING = {
    "type": "object",
    "properties": {
        "feature": {"type": "string"},
        "known": {"type": "string"},
        "questioned": {"type": "string"},
        "known_box": _BOX,
        "questioned_box": _BOX,
    },
    "required": ["feature", "known", "questioned", "known_box", "questioned_box"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "findings": {"type": "array", "items": _FINDING},
        "explanation": {"type": "string"},
        "probability": {"type": "number"},
        "decision": {"type": "string", "enum": ["same", "different", "unknown"]},
    },
    "required": ["findings", "explanation", "probability", "decision"],
    "additionalProperties": False,
}
"""JSON schema of the mode `json`; reasons stand before the decision, so they are written first."""


@dataclass(frozen=True)
class Finding:
    """One remark on one feature.

    Attributes:
        feature: its name.
        known: what is seen in the known sample.
        questioned: what is seen in the questioned sample.
        known_box: where, as (left, top, right, bottom) in [0, 1] of the picture that was sent.
        questioned_box: likewise.
    """

    feature: str
    known: str
    questioned: str
    known_box: Box | None = None
    questioned_box: Box | None = None

    def turned(self) -> Finding:
        """Return the finding with both samples exchanged."""
        return replace(
            self,
            known=self.questioned,
            questioned=self.known,
            known_box=self.questioned_box,
            questioned_box=self.known_box,
        )


@dataclass(frozen=True)
class Structured:
    """What is kept of an answer in JSON.

    Attributes:
        decision: same, different or unknown.
        probability: of same writer as the model states it, in [0, 1]; None if it does not.
        explanation: free text.
        findings: remarks that are as the schema says.
        problems: how the answer departs from the schema, one line each.
    """

    decision: Decision
    probability: float | None
    explanation: str
    findings: tuple[Finding, ...]
    problems: tuple[str, ...]


def read_structured(text: str) -> Structured:
    """Return what an answer in JSON says; what departs from the schema is named and left out.

    Args:
        text: an answer; one without a JSON object is read by `parse_decision`.
    """
    value = read_json(text)
    if value is None:
        return Structured(parse_decision(text), None, text.strip(), (), ("no JSON object",))
    problems: list[str] = []
    decision = value.get("decision")
    if decision not in ("same", "different", "unknown"):
        problems.append(f"decision is {_shown(decision)}")
        decision = parse_decision(text)
    probability = value.get("probability")
    if not _is_share(probability):
        problems.append(f"probability is {_shown(probability)}")
        probability = None
    explanation = value.get("explanation")
    if not isinstance(explanation, str):
        problems.append("explanation is no text")
        explanation = ""
    findings = value.get("findings")
    if not isinstance(findings, list):
        problems.append("findings are no list")
        findings = []
    remarks, wrong = read_findings(findings)
    problems += wrong
    number_or_none = None if probability is None else float(probability)
    return Structured(decision, number_or_none, explanation, remarks, tuple(problems))


def read_findings(items: Sequence[Any]) -> tuple[tuple[Finding, ...], list[str]]:
    """Return the findings among `items`, at most 100, and what is wrong with the others.

    Args:
        items: of an answer or a record; they may be anything.
    """
    kept, problems = [], []
    for number, item in enumerate(items[:_MOST], 1):
        finding, problem = _finding(item)
        if finding is not None:
            kept.append(finding)
        if problem:
            problems.append(f"finding {number}: {problem}")
    return tuple(kept), problems


def _shown(value: Any) -> str:
    return one_line(repr(value))[:60]


def _is_share(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value <= 1


def _finding(item: Any) -> tuple[Finding | None, str]:
    if not isinstance(item, Mapping):
        return None, "no object"
    texts = [item.get(key) for key in ("feature", "known", "questioned")]
    if not all(isinstance(text, str) for text in texts) or not texts[0]:
        return None, "feature, known and questioned must be texts"
    boxes, problem = [], ""
    for key in ("known_box", "questioned_box"):
        box = item.get(key)
        good = box is None or _is_box(box)
        problem = problem or ("" if good else f"{key} is {_shown(box)}")
        boxes.append(tuple(map(float, box)) if good and box is not None else None)
    return Finding(*map(str, texts), *boxes), problem  # type: ignore[arg-type]


def _is_box(box: Any) -> bool:
    """Return whether `box` is (left, top, right, bottom) in [0, 1] with an area."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_share, box)):
        return False
    left, top, right, bottom = box
    return bool(left < right and top < bottom)
