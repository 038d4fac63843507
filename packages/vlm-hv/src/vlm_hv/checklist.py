"""A test of explanations: are the features that a model names those that an examiner coded?

CEDAR "AND" comes with 15 attributes per word (features15.csv). A model is asked for them as a
list of choices, one sample at a time, and each attribute is scored against the codes. Most are
skewed, so the majority answer stands beside every number. Needs no torch.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from papercommons.errors import DataError, reason

from vlm_hv.conversation import Message, Picture, Request
from vlm_hv.modes import AskOptions
from vlm_hv.parsing import read_json
from vlm_hv.prompts import Feature, Prompts

Codes = Mapping[str, int | None]


def checklist_schema(features: Sequence[Feature]) -> dict[str, Any]:
    """Return the JSON schema of an answer: one of the listed answers per feature."""
    return {
        "type": "object",
        "properties": {
            feature.name: {"type": "string", "enum": list(feature.answers.values())}
            for feature in features
        },
        "required": [feature.name for feature in features],
        "additionalProperties": False,
    }


def checklist_request(prompts: Prompts, picture: Picture, options: AskOptions) -> Request:
    """Return the question for the features of one sample.

    Args:
        prompts: with features.
        picture: the sample.
        options: temperature, seed and longest answer.

    Raises:
        DataError: the prompts have no features.
    """
    if not prompts.features:
        raise DataError(f"{prompts.name}: has no features to ask for; take forensic_v1")
    lines = [
        f"{feature.name} ({feature.question}): {json.dumps(list(feature.answers.values()))}"
        for feature in prompts.features
    ]
    system = (Message("system", (prompts.system,)),) if prompts.system else ()
    question = "\n".join([prompts.checklist, *lines])
    return Request(
        (*system, Message("user", (question, picture))),
        options.max_tokens,
        options.temperature,
        options.seed,
        schema=checklist_schema(prompts.features),
    )


def read_checklist(text: str, features: Sequence[Feature]) -> dict[str, int | None]:
    """Return the code of each feature that an answer gives; None where it gives none that is valid.

    Args:
        text: an answer, with a JSON object in it.
        features: that were asked for.
    """
    said = {_fold(key): value for key, value in (read_json(text) or {}).items()}
    return {feature.name: _code(feature, said.get(_fold(feature.name))) for feature in features}


def _fold(value: Any) -> str:
    return re.sub(r"[\s_-]+", " ", str(value)).strip(" .").lower()


def _code(feature: Feature, value: Any) -> int | None:
    if isinstance(value, bool):  # a model may take "yes" for true
        value = "yes" if value else "no"
    codes = {_fold(answer): code for code, answer in feature.answers.items()}
    return codes.get(_fold(value))


def read_codes(path: str | Path, features: Sequence[Feature]) -> dict[str, dict[str, int | None]]:
    """Return the coded attributes of each image, by its name.

    Args:
        path: a .csv with the column file_name (or imagename, as published) and one per feature.
        features: which columns are read; an empty cell is None.

    Raises:
        DataError: no such file, a column is missing, or a code is not one of the feature's.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable csv ({reason(error)})") from None
    named = "imagename" if rows and "imagename" in rows[0] else "file_name"
    wanted = {named, *(feature.name for feature in features)}
    if not rows or not wanted <= set(rows[0]):
        missing = ", ".join(sorted(wanted - set(rows[0] if rows else ())))
        raise DataError(f"{path}: no rows, or no column {missing}; expected features15.csv")
    return {
        row[named]: {feature.name: _stored(path, row[named], row, feature) for feature in features}
        for row in rows
    }


def _stored(path: Path, image: str, row: Mapping[str, str | None], feature: Feature) -> int | None:
    text = (row[feature.name] or "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) not in feature.answers:
        raise DataError(
            f"{path}: {image}: {feature.name} is {text!r}, expected one of "
            f"{', '.join(map(str, feature.answers))}"
        )
    return int(text)


def find_codes(root: str | Path) -> Path | None:
    """Return the table of coded attributes of a copy of CEDAR "AND", None if there is none.

    Args:
        root: the folder, packed or as published.
    """
    places = (Path(root) / "features15.csv", Path(root) / "15feat-dataset" / "15features.csv")
    return next((place for place in places if place.is_file()), None)


def score_checklist(
    said: Sequence[Codes], coded: Sequence[Codes], features: Sequence[Feature]
) -> list[dict[str, Any]]:
    """Return one row per feature: how often the model agrees with the codes.

    Args:
        said: the model's codes of each sample; None counts as wrong.
        coded: the examiner's codes of the same samples; None is left out.
        features: which.

    Returns:
        ``feature, samples, answered, accuracy, balanced_accuracy, majority`` (accuracy of always
        giving the most frequent code), ``majority_balanced`` (1 over the number of codes); None
        where no sample is coded.

    Raises:
        ValueError: the lengths differ.
    """
    if len(said) != len(coded):
        raise ValueError(f"{len(said)} answers, but codes of {len(coded)} samples")
    return [_score(feature.name, said, coded) for feature in features]


def _score(name: str, said: Sequence[Codes], coded: Sequence[Codes]) -> dict[str, Any]:
    pairs = [
        (s.get(name), c.get(name))
        for s, c in zip(said, coded, strict=True)
        if c.get(name) is not None
    ]
    counts = Counter(truth for _, truth in pairs)
    hits = Counter(truth for answer, truth in pairs if answer == truth)
    row: dict[str, Any] = {"feature": name, "samples": len(pairs)}
    row["answered"] = sum(answer is not None for answer, _ in pairs)
    if not pairs:
        none = ("accuracy", "balanced_accuracy", "majority", "majority_balanced")
        return row | dict.fromkeys(none)
    recalls = [hits[code] / count for code, count in counts.items()]
    return row | {
        "accuracy": hits.total() / len(pairs),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "majority": max(counts.values()) / len(pairs),
        "majority_balanced": 1 / len(counts),
    }
