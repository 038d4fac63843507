"""One line of JSON per pair: what was shown, asked, answered and decided; needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.errors import DataError, one_line, reason
from papercommons.files import write_text
from papercommons.versions import installed_version

if TYPE_CHECKING:
    from vlm_hv.cases import Case
    from vlm_hv.conversation import Answer, Picture
    from vlm_hv.modes import Opinion, Verdict

Record = dict[str, Any]
LIMITS = (
    "A verdict of a vision-language model on two images of handwriting: only as good as measured "
    "on pairs like yours. Other words, languages, pens, scanners or writers need their own test "
    "and calibration. It is no proof of authorship; a trained examiner decides."
)
STATUSES = ("answered", "unknown", "partial", "failed")
DECISIONS = ("same", "different", "unknown")


def make_record(
    number: int,
    case: Case,
    verdict: Verdict,
    shown: Sequence[Picture],
    settings: Mapping[str, Any],
) -> Record:
    """Return the record of one pair, plain types.

    Args:
        number: of the pair in its list, from 0.
        case: the pair.
        verdict: what was decided.
        shown: the pictures that were sent, known first.
        settings: what was asked, whom and how; see `vlm_hv.running`.
    """
    answers = [
        _answer(answer, opinion, turn)
        for opinion in verdict.opinions
        for turn, answer in enumerate(opinion.answers, 1)
    ]
    return {
        "pair": number,
        "known": case.known,
        "questioned": case.questioned,
        "label": case.label,
        "writers": case.writers and list(case.writers),
        "prediction": verdict.decision,
        "score": verdict.score,
        "status": verdict.status,
        "explanation": verdict.explanation,
        "findings": [asdict(finding) for finding in verdict.findings],
        "order_agrees": verdict.order_agrees,
        "opinions": [_opinion(opinion) for opinion in verdict.opinions],
        "answers": answers,
        "tokens": {
            kind: _sum([answer[f"{kind}_tokens"] for answer in answers])
            for kind in ("prompt", "completion")
        },
        "seconds": math.fsum(answer["seconds"] for answer in answers),
        "images": [{"name": picture.name, "sha256": picture.sha256} for picture in shown],
        "settings": dict(settings),
        "version": installed_version("vlm-hv"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _opinion(opinion: Opinion) -> dict[str, Any]:
    return {
        "swapped": opinion.swapped,
        "sample": opinion.sample,
        "prediction": opinion.decision,
        "score": opinion.score,
        "failure": opinion.failure,
        "retryable": opinion.retryable,
        "problems": list(opinion.problems),
    }


def _answer(answer: Answer, opinion: Opinion, turn: int) -> dict[str, Any]:
    told = answer.choice_logprobs
    finite = None  # JSON knows no infinity
    if told is not None:
        finite = {word: v if math.isfinite(v) else None for word, v in told.items()}
    place = {"swapped": opinion.swapped, "sample": opinion.sample, "turn": turn}
    return place | asdict(answer) | {"choice_logprobs": finite}


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def to_line(record: Record) -> str:
    """Return the record as one line of strict JSON."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def write_records(path: str | Path, records: Sequence[Record]) -> None:
    """Write all records to `path`, whole or not at all.

    Args:
        path: a .jsonl file.
        records: one line each.
    """
    write_text(path, "".join(map(to_line, records)))


def read_records(path: str | Path, *, torn: bool = False) -> list[Record]:
    """Return the records of a file, by the number of the pair; the last of a number counts.

    Args:
        path: a .jsonl file.
        torn: pass over a last line that is not whole, as a killed run leaves it.

    Raises:
        DataError: no such file, no records, or a line that is no record.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; give predictions.jsonl of vlm-hv-predict")
    content = path.read_bytes()
    lines = content.split(b"\n")
    if torn:
        lines = lines[:-1]  # what follows the last end of line, nothing if the file is whole
    found: dict[int, Record] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            record = _parse(path, number, line)
            found[record["pair"]] = record
    if not found and not torn:
        raise DataError(f"{path}: no records in it; expected one JSON object per line")
    return [found[number] for number in sorted(found)]


def _parse(path: Path, number: int, line: bytes) -> Record:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: line {number}: not JSON ({reason(error)})") from None
    problem = _problem(record)
    if problem:
        raise DataError(f"{path}: line {number}: {problem}; expected a record of vlm-hv-predict")
    return record


def _problem(record: Any) -> str:
    """Return what is wrong with a record, or an empty text."""
    if not isinstance(record, dict):
        return "no object"
    for key, types in (("known", str), ("questioned", str), ("opinions", list), ("settings", dict)):
        if not isinstance(record.get(key), types):
            return f"{key} is {_shown(record.get(key))}"
    pair, score = record.get("pair"), record.get("score")
    if not isinstance(pair, int) or isinstance(pair, bool) or pair < 0:
        return f"pair is {_shown(pair)}"
    if record.get("prediction") not in DECISIONS or record.get("status") not in STATUSES:
        return (
            f"prediction and status are {_shown([record.get('prediction'), record.get('status')])}"
        )
    number = isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1
    if not (score is None or number):
        return f"score is {_shown(score)}"
    if record.get("label") not in (0, 1, None) or isinstance(record.get("label"), float):
        return f"label is {_shown(record.get('label'))}"
    return _writer_problem(record.get("writers"))


def _writer_problem(writers: Any) -> str:
    good = isinstance(writers, list) and len(writers) == 2 and all(map(_is_text, writers))
    return "" if good or writers is None else f"writers are {_shown(writers)}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _shown(value: Any) -> str:
    return one_line(repr(value))[:80]
