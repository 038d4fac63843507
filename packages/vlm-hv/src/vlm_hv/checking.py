"""`vlm-hv-predict --checklist`: asks for the attributes of each image, and scores them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from papercommons.files import write_text
from papercommons.report import Result, write_report

from vlm_hv.budget import Budget
from vlm_hv.cache import Cache
from vlm_hv.checklist import (
    checklist_request,
    find_codes,
    read_checklist,
    read_codes,
    score_checklist,
)
from vlm_hv.conversation import Failure, Picture
from vlm_hv.images import encode, fit
from vlm_hv.modes import AskOptions, Conversation, Opinion
from vlm_hv.opening import Asking
from vlm_hv.pairing import Chosen
from vlm_hv.prompts import Feature, Prompts
from vlm_hv.scheduler import Scheduler

FILE = "checklist.jsonl"


def check_images(
    chosen: Chosen,
    asking: Asking,
    spent: Budget,
    cache: Cache,
    folder: Path,
    result: Result,
    *,
    resume: bool,
) -> Result:
    """Ask for the attributes of every image of the pairs, and return the filled result.

    Args:
        chosen: the pairs; each image counts once.
        asking: whom to ask.
        spent: what it may cost.
        cache: of answers.
        folder: of the run; gets checklist.jsonl, report.html and result.json.
        result: changed in place.
        resume: keep what an earlier run has heard.

    Raises:
        DataError: the prompts have no features, or the first request failed.
    """
    features = asking.prompts.features
    names = list(dict.fromkeys(n for c in chosen.cases.cases for n in (c.known, c.questioned)))
    path = folder / FILE
    heard = _read(path) if resume else {}
    missing = [name for name in names if name not in heard]
    scheduler = Scheduler(
        asking.backend, cache, spent, batch_size=asking.batch_size, workers=asking.workers
    )
    begun = (
        (place, _converse(asking.prompts, asking.ask, _picture(chosen, asking, name)))
        for place, name in enumerate(missing)
    )
    write_text(path, "".join(_line(row) for row in heard.values()))
    with path.open("a", encoding="utf-8") as file:
        for place, opinion in scheduler.run(begun):
            row = _row(missing[place], opinion, features)
            file.write(_line(row))
            file.flush()
            if not opinion.failure:
                heard[row["name"]] = row
    rows = [heard[name] for name in names if name in heard]
    write_text(path, "".join(map(_line, rows)))
    _describe(result, rows, chosen, features)
    if len(rows) < len(names):
        why = scheduler.stopped or "their requests failed"
        result.notes = [
            *result.notes,
            f"{len(names) - len(rows):,} IMAGES ARE MISSING: {why}; --resume goes on",
        ]
    result.title = f"{asking.backend.model}: {len(features)} attributes of {len(rows):,} images"
    result.files["answers"] = str(path)
    write_report(folder / "report.html", result)
    result.save(folder)
    return result


def _describe(
    result: Result, rows: Sequence[dict[str, Any]], chosen: Chosen, features: Sequence[Feature]
) -> None:
    table = find_codes(chosen.images.root)
    result.metrics = {"images": len(rows)}
    if table is None or not rows:
        result.notes = [*result.notes, "no coded attributes come with these images: nothing scored"]
        return
    codes = read_codes(table, features)
    coded = [row for row in rows if row["name"] in codes]
    result.rows = score_checklist(
        [row["codes"] for row in coded], [codes[row["name"]] for row in coded], features
    )
    scored = [row for row in result.rows if row["accuracy"] is not None]
    for name in ("accuracy", "balanced_accuracy", "majority", "majority_balanced"):
        mean = sum(row[name] for row in scored) / len(scored) if scored else None
        result.metrics = {**result.metrics, name: mean}
    result.notes = [
        *result.notes,
        "codes of an examiner's table, much of which seems to be made by machine; most attributes "
        "are skewed: compare balanced_accuracy with majority_balanced, which is guessing",
    ]


def _converse(prompts: Prompts, ask: AskOptions, picture: Picture) -> Conversation:
    answer = yield checklist_request(prompts, picture, ask)
    if isinstance(answer, Failure):
        return Opinion(failure=answer.reason, retryable=answer.retryable)
    return Opinion(explanation=answer.text, answers=(answer,))


def _picture(chosen: Chosen, asking: Asking, name: str) -> Picture:
    return encode(fit(chosen.cases.read(name), asking.pictures), name)


def _row(name: str, opinion: Opinion, features: Sequence[Feature]) -> dict[str, Any]:
    said = read_checklist(opinion.explanation, features)
    return {"name": name, "codes": said, "text": opinion.explanation, "failure": opinion.failure}


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return whole rows without a failure by name; a torn or foreign line is passed over."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        good = isinstance(row, dict) and isinstance(row.get("codes"), dict)
        if good and isinstance(row.get("name"), str) and not row.get("failure"):
            found[row["name"]] = row
    return found
