"""Versioned prompts: what a model is asked, as files; `load` reads one. Needs no torch.

A published file never changes: another wording is another name. Answers and records carry the name
and the hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from papercommons.errors import DataError, nearest, one_line, reason

_FOLDER = Path(__file__).parent
_TEXTS = ("system", "explain", "decide", "one_turn_json", "direct", "checklist")
_LABELS = ("known_label", "questioned_label", "canvas_label")
_MOST = 1_000_000  # bytes of a file


@dataclass(frozen=True)
class Feature:
    """One line of the checklist.

    Attributes:
        name: column of the attribute table, e.g. ``pen_pressure``.
        question: what it is about.
        answers: code in that table -> what the model may answer.
    """

    name: str
    question: str
    answers: Mapping[int, str]


@dataclass(frozen=True)
class Prompts:
    """The words of one prompt file.

    Attributes:
        name: ``forensic_v1``, or the path of the user's own file.
        sha256: of the file, hexadecimal.
        subject: what the samples show, put for ``{subject}`` in the texts.
        system: who the model is to be; empty: no system message.
        explain: first turn of `cot2`.
        decide: second turn of `cot2`.
        one_turn_json: asks for one JSON object.
        direct: asks for Yes or No, and nothing else.
        checklist: asks for the features of one sample.
        known_label: stands before the first picture.
        questioned_label: stands before the second picture.
        canvas_label: stands before one canvas with both.
        features: of the checklist.
    """

    name: str
    sha256: str
    subject: str
    system: str
    explain: str
    decide: str
    one_turn_json: str
    direct: str
    checklist: str
    known_label: str
    questioned_label: str
    canvas_label: str
    features: tuple[Feature, ...]

    def about(self, subject: str) -> Prompts:
        """Return the same prompts for other samples, e.g. ``the handwritten word "the"``."""
        if not subject.strip():
            raise ValueError("subject must not be empty")
        texts = {key: getattr(self, key).replace(self.subject, subject) for key in _TEXTS}
        return replace(self, subject=subject, **texts)


def names() -> list[str]:
    """Return the names of the prompt files that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load(name: str) -> Prompts:
    """Return prompts by name, or from a file of the user's.

    Args:
        name: of a file that comes with the package (``forensic_v1``: the paper's protocol;
            ``paligemma_v1``: short questions in PaliGemma's manner), or the path of a .yaml file
            with the same keys.

    Raises:
        DataError: no such prompts, or the file is not as documented.
    """
    own = name.endswith((".yaml", ".yml"))
    if not own and name not in names():
        raise DataError(
            f"no prompts {name!r}, there are {', '.join(names())}{nearest(name, names())}; a file "
            "of your own ends in .yaml"
        )
    path = Path(name) if own else _FOLDER / f"{name}.yaml"
    try:
        if path.stat().st_size > _MOST:
            raise DataError(f"{name}: larger than {_MOST:,} bytes; no prompts are so long")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from None
    return _parse(name, content)


def _parse(name: str, content: bytes) -> Prompts:
    from papercommons.yaml_text import parse_yaml

    try:
        value = parse_yaml(content.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"{name}: not readable as YAML ({reason(error)})") from None
    texts = _texts(name, value)
    subject = texts.pop("subject")
    filled = {key: text.replace("{subject}", subject).strip() for key, text in texts.items()}
    features = tuple(_feature(name, *item) for item in value.get("features", {}).items())
    return Prompts(name, hashlib.sha256(content).hexdigest(), subject, features=features, **filled)


def _texts(name: str, value: Any) -> dict[str, str]:
    wanted = ("subject", *_TEXTS, *_LABELS)
    if not isinstance(value, dict):
        raise DataError(f"{name}: expected the keys {', '.join(wanted)}, features")
    if unknown := sorted(set(map(str, value)) - {*wanted, "features"}):
        raise DataError(f"{name}: unknown key {unknown[0]!r}{nearest(unknown[0], wanted)}")
    for key in wanted:
        if not isinstance(value.get(key), str):
            raise DataError(f"{name}: {key} must be a text, got {one_line(repr(value.get(key)))}")
    if not value["subject"].strip() or not value["direct"].strip():
        raise DataError(f"{name}: subject and direct must not be empty")
    if not isinstance(value.get("features", {}), dict):
        raise DataError(f"{name}: features must map names to a question and answers")
    return {key: value[key] for key in wanted}


def _feature(name: str, feature: Any, value: Any) -> Feature:
    answers = value.get("answers") if isinstance(value, dict) else None
    coded = isinstance(answers, dict) and all(
        isinstance(code, int) and isinstance(text, str) for code, text in answers.items()
    )
    if not coded or not answers or not isinstance(value.get("question"), str):
        raise DataError(f"{name}: feature {feature!r} needs a question, and answers by code")
    return Feature(str(feature), value["question"], dict(answers))
