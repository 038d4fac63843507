"""`vlm-hv-compare`: one known and one questioned sample, a verdict with reasons."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from papercommons.data.images import read_image
from papercommons.errors import DataError
from papercommons.files import hash_files, prepare_out, write_json
from papercommons.report import Result, write_report

from vlm_hv.budget import Budget
from vlm_hv.cache import Cache
from vlm_hv.cases import Case, Images
from vlm_hv.images import pictures
from vlm_hv.modes import conversations, decide
from vlm_hv.opening import open_asking
from vlm_hv.options import PACKAGE, ModelOptions, QuestionOptions, ShownOptions
from vlm_hv.records import LIMITS, Record, make_record
from vlm_hv.reporting import MOST_LINES, pair_section
from vlm_hv.running import run_settings
from vlm_hv.runs import Run
from vlm_hv.scheduler import Scheduler

VERDICTS = {"same": "same writer", "different": "different writers", "unknown": "no decision"}


def compare_images(
    known: str,
    questioned: str,
    model: str,
    out: str | None,
    overwrite: bool,
    seed: int,
    question: QuestionOptions,
    shown: ShownOptions,
    who: ModelOptions,
) -> Result:
    """Ask a model about two image files and return the result.

    Args:
        known: image file.
        questioned: image file.
        model: folder, hub id, or the server's id.
        out: folder for the report; None writes nothing.
        overwrite: empty it first.
        seed: of the sampling.
        question: the question.
        shown: the pictures.
        who: the backend.

    Raises:
        DataError: an image, the prompts, the model or a key cannot be used, or there is no answer.
    """
    first, second = read_image(known), read_image(questioned)
    with open_asking(model, question, shown, who, swap=True, seed=seed) as asking:
        settings: dict[str, Any] = {"known": known, "questioned": questioned, "model": model}
        settings |= {"out": out, "seed": seed, **asdict(question), **asdict(asking.ask)}
        settings |= asdict(asking.pictures) | asdict(who)
        sent = pictures(first, second, asking.pictures, names=(known, questioned))
        turned = pictures(second, first, asking.pictures, names=(questioned, known))
        scheduler = Scheduler(
            asking.backend,
            Cache(who.cache, asking.backend),
            Budget.unlimited(),
            batch_size=asking.batch_size,
            workers=asking.workers,
        )
        begun = conversations(asking.prompts, asking.ask, sent, turned)
        opinions = [opinion for _, opinion in scheduler.run(enumerate(begun))]
        noted = run_settings(asking.backend, asking.prompts, asking.ask, asking.pictures, "none")
    record = make_record(0, Case(known, questioned), decide(opinions), sent, noted)
    if all(opinion.failure for opinion in opinions):
        raise DataError(f"{model}: no answer: {opinions[0].failure}")
    result = Result(
        package=PACKAGE,
        command="vlm-hv-compare",
        title=f"{known} and {questioned}: {VERDICTS[record['prediction']]}",
        rows=_opinions(record),
        metrics={name: record[name] for name in ("prediction", "score", "order_agrees", "status")}
        | {name: record[name] for name in ("explanation", "findings", "tokens", "seconds")},
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([known, questioned]),
        device=asking.device,
        notes=[*_reasons(record), *asking.notes],
    )
    if out is None:
        return result
    folder = prepare_out(out, settings, overwrite=overwrite)
    write_json(folder / "record.json", record)
    result.files["record"] = str(folder / "record.json")
    section = pair_section("the comparison", record, [Run(folder, "", [record])], _Files())
    write_report(folder / "report.html", result, [section])
    result.save(folder)
    return result


class _Files(Images):
    """Image files by path, as the user gave them."""

    def __init__(self) -> None:
        super().__init__(Path(), None)

    def find(self, where: str, name: str) -> tuple[str, str | None]:
        """Return the path as it is."""
        return name, None


def _opinions(record: Record) -> list[dict[str, Any]]:
    return [
        {
            "order": "questioned first" if opinion["swapped"] else "known first",
            "sample": opinion["sample"] + 1,
            "prediction": VERDICTS[opinion["prediction"]],
            "score": opinion["score"],
            "problems": "; ".join(
                [*opinion["problems"], *[opinion["failure"]] * bool(opinion["failure"])]
            ),
        }
        for opinion in record["opinions"]
    ]


def _reasons(record: Record) -> list[str]:
    """Return score, agreement of both orders, findings and explanation, a line each."""
    lines = [] if record["score"] is None else [f"score for same writer {record['score']:.3f}"]
    if record["order_agrees"] is False:
        lines.append("THE TWO ORDERS LED TO DIFFERENT VERDICTS: do not rely on either")
    lines += [
        f"{number}. {f['feature']}: known {f['known']}; questioned {f['questioned']}"
        for number, f in enumerate(record["findings"], 1)
    ]
    spoken = [line.strip() for line in record["explanation"].splitlines() if line.strip()]
    return lines + spoken[:MOST_LINES]
