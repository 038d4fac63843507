"""`vlm-hv-predict`: asks a model about many pairs, and says what its answers come to."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
from papercommons.cli import track
from papercommons.data.word_options import WordOptions
from papercommons.errors import DataError, counted
from papercommons.files import prepare_out
from papercommons.report import Result, Section, write_report

from vlm_hv.accounting import Account, account
from vlm_hv.budget import Budget, BudgetOptions, guess_prompt_tokens
from vlm_hv.cache import Cache
from vlm_hv.cases import CaseList, Images
from vlm_hv.conversation import Picture
from vlm_hv.images import Ablation, pictures
from vlm_hv.modes import conversations
from vlm_hv.opening import Asking, open_asking
from vlm_hv.options import PACKAGE, ModelOptions, QuestionOptions, ShownOptions
from vlm_hv.pairing import choose_cases
from vlm_hv.pairs import Split
from vlm_hv.pictures import scores_png
from vlm_hv.records import LIMITS, Record
from vlm_hv.reporting import pair_section, pick
from vlm_hv.running import Run as Done
from vlm_hv.running import run_cases
from vlm_hv.runs import CONTROLS, PREDICTIONS, Run

log = logging.getLogger("papercommons")

APART = 1000  # between the seeds of two repeats: samples of one use seed + k
MOST_ROWS = 20
PER_GROUP = 2  # pairs of each group in the report
_MAY_CHANGE = {field.name for field in fields(ModelOptions)} - {"backend", "base_url"}
_MAY_CHANGE |= {field.name for field in fields(BudgetOptions)}


def predict_pairs(
    data: str,
    model: str,
    pairs: str | None,
    split: Split,
    limit: int | None,
    ablate: Ablation,
    repeats: int,
    checklist: bool,
    out: str,
    resume: bool,
    overwrite: bool,
    seed: int,
    words: WordOptions,
    question: QuestionOptions,
    shown: ShownOptions,
    who: ModelOptions,
    budget: BudgetOptions,
) -> Result:
    """Ask about all pairs, write the run's folder, and return the result.

    Args:
        data: folder of the images.
        model: folder, hub id, or the server's id.
        pairs: list of pairs; None takes those of `split`.
        split: train, val, test or all.
        limit: most pairs.
        ablate: what is done to the pictures.
        repeats: how often the whole is asked.
        checklist: ask for the attributes of each image instead of verdicts.
        out: folder of the run.
        resume: go on with it.
        overwrite: empty it first.
        seed: of the draw, of made pairs and of the sampling.
        words: which images.
        question: the question.
        shown: the pictures.
        who: the backend.
        budget: what it may cost.

    Raises:
        DataError: pairs, images, prompts, model or key cannot be used, or no request succeeded.
        RuntimeError: too many requests failed in a row.
    """
    chosen = choose_cases(data, pairs, split, limit, seed, words)
    cases = chosen.cases
    with open_asking(model, question, shown, who, swap=cases.labelled, seed=seed) as asking:
        if repeats > 1 and who.backend == "transformers" and asking.ask.temperature == 0:
            raise ValueError("--repeats of a greedy local model are all alike: give --temperature")
        settings: dict[str, Any] = {"data": data, "model": model, "pairs": pairs, "split": split}
        settings |= {"limit": limit, "ablate": ablate, "repeats": repeats, "checklist": checklist}
        settings |= {"out": out, "seed": seed, **asdict(words), **asdict(question)}
        settings |= asdict(asking.ask) | asdict(asking.pictures) | asdict(who) | asdict(budget)
        folder = prepare_out(
            out,
            settings,
            resume=resume,
            overwrite=overwrite,
            may_change=_MAY_CHANGE,
        )
        spent, cache = Budget(budget), Cache(who.cache, asking.backend)
        result = Result(
            package=PACKAGE,
            command="vlm-hv-predict",
            title="",
            settings=settings,
            limits=LIMITS,
            data_hash=cases.digest,
            device=asking.device,
            notes=[*asking.notes],
        )
        if checklist:
            from vlm_hv.checking import check_images

            return check_images(chosen, asking, spent, cache, folder, result, resume=resume)
        _announce(cases, asking, ablate, repeats, spent)
        done = [
            _run(cases, asking, ablate, repeat, spent, cache, folder, resume)
            for repeat in range(repeats)
        ]
    describe_run(result, cases, asking, done, chosen.source)
    if ablate in CONTROLS:
        result.notes = [f"{CONTROLS[ablate]}; accuracy should be that of guessing", *result.notes]
    write_run(folder, result, done[0].records, chosen.images)
    if "failed in a row" in done[-1].stopped:
        raise RuntimeError(f"{done[-1].stopped}; --resume goes on with what is missing")
    return result


def _run(
    cases: CaseList,
    asking: Asking,
    ablate: Ablation,
    repeat: int,
    spent: Budget,
    cache: Cache,
    folder: Path,
    resume: bool,
) -> Done:
    path = folder / (PREDICTIONS if not repeat else f"predictions_{repeat + 1}.jsonl")
    ask = replace(asking.ask, seed=asking.ask.seed + APART * repeat)
    bar = iter(track(range(len(cases.cases)), "asking"))

    def ended(record: Record) -> None:
        next(bar, None)

    try:
        return run_cases(
            cases,
            asking.backend,
            asking.prompts,
            ask,
            out=path,
            options=asking.pictures,
            ablation=ablate,
            budget=spent,
            cache=cache,
            batch_size=asking.batch_size,
            workers=asking.workers,
            resume=resume,
            ended=ended,
        )
    except DataError:
        if path.is_file() and not path.stat().st_size:
            path.unlink()  # nothing was answered: the run never began
        raise


def _announce(
    cases: CaseList, asking: Asking, ablate: Ablation, repeats: int, spent: Budget
) -> None:
    """Say in log lines what will be asked, before it is."""
    count, turns = len(cases.cases), asking.ask.turns
    log.info(
        "%s pairs, %d requests each%s%s: %s requests",
        f"{count:,}",
        turns,
        ", in both orders (--no-swap halves that)" if asking.ask.swap else "",
        f", {repeats} times" if repeats > 1 else "",
        f"{count * turns * repeats:,}",
    )
    if asking.backend.name != "openai":
        return
    first = cases.cases[0]
    sent: tuple[Picture, ...] = ()
    if ablate != "text-only":
        sent = pictures(cases.read(first.known), cases.read(first.questioned), asking.pictures)
    request = next(conversations(asking.prompts, replace(asking.ask, swap=False), sent)[0])
    requests = count * turns * repeats
    asked, told = guess_prompt_tokens(request) * requests, request.max_tokens * requests
    price = spent.price(asked, told)
    log.info(
        "about %s tokens of questions and at most %s of answers%s",
        f"{asked:,}",
        f"{told:,}",
        "" if price is None else f": at most about {price:,.2f}",
    )


def describe_run(
    result: Result, cases: CaseList, asking: Asking, done: Sequence[Done], source: str
) -> None:
    """Fill in title, table, numbers and notes of a result.

    Args:
        result: changed in place.
        cases: what was asked about.
        asking: whom and how.
        done: the runs, more than one with --repeats.
        source: what the pairs are, in words.
    """
    records, ask = done[0].records, asking.ask
    result.title = f"{asking.backend.model}, {ask.mode}: {counted(len(records), 'pair')}, {source}"
    found = judge(records, seed=ask.seed)
    costs: dict[str, Any] = {
        "sent": sum(run.sent for run in done),
        "from_cache": sum(run.hits for run in done),
    }
    costs |= {"kept_pairs": sum(run.kept for run in done), "cost": done[-1].cost}
    costs |= {"tokens": [done[-1].prompt_tokens, done[-1].completion_tokens]}
    result.metrics = {**(found.numbers() if found else counts(records)), "this_run": costs}
    result.rows = found.rows() if found else _verdicts(records)
    notes = [*result.notes, *run_notes(records, found)]
    if ask.swap:
        notes.append(
            "every pair was asked in both orders, which doubles the cost; --no-swap halves it"
        )
    if len(done) > 1:
        notes += _spread(done, ask.seed, result)
    money = "" if done[-1].cost is None else f", cost {done[-1].cost:,.4f}"
    notes.append(
        f"this run: {costs['sent']:,} requests sent, {costs['from_cache']:,} from the cache, "
        f"{done[-1].prompt_tokens:,} + {done[-1].completion_tokens:,} tokens{money}"
    )
    missing = sum(len(cases.cases) - len(run.records) for run in done)
    if missing:
        notes.append(
            f"STOPPED, {missing:,} PAIRS ARE MISSING: {done[-1].stopped}; --resume goes on"
        )
    result.notes = notes


def judge(records: Sequence[Record], *, draws: int = 1000, seed: int = 0) -> Account | None:
    """Return what records come to, None where labels are missing or of one kind.

    Args:
        records: of one run.
        draws: resamples of writers.
        seed: of the resampling.
    """
    if len({record["label"] for record in records} - {None}) < 2:
        return None
    if any(record["label"] is None for record in records):
        return None
    return account(records, draws=draws, seed=seed)


def counts(records: Sequence[Record]) -> dict[str, Any]:
    """Return how often each decision and status came up."""
    said = Counter(f"predicted_{record['prediction']}" for record in records)
    return {"pairs": len(records), **said, **Counter(record["status"] for record in records)}


def run_notes(records: Sequence[Record], found: Account | None) -> list[str]:
    """Return what the numbers do not show, a line each.

    Args:
        records: of one run.
        found: what they come to; None without labels.
    """
    status = Counter(record["status"] for record in records)
    notes = [", ".join(f"{count:,} {name}" for name, count in status.items())]
    same = sum(record["label"] == 1 for record in records)
    if found is not None:
        notes.append(
            f"{same:,} of {len(records):,} pairs are of one writer: always giving the more "
            f"frequent answer has accuracy {found.majority:.4f}"
        )
        if any(record.get("writers") is None for record in records):
            notes.append("writers are not known, so there are no intervals")
    elif same and same == sum(record["label"] is not None for record in records) == len(records):
        notes.append("ALL PAIRS ARE OF ONE WRITER: nothing is judged")
    if found is not None and found.problems:
        often = sorted(found.problems.items(), key=lambda item: -item[1])[:4]
        notes.append("answers: " + ", ".join(f"{count:,} x {what}" for what, count in often))
    failures = [o["failure"] for r in records for o in r["opinions"] if o.get("failure")]
    if failures:
        what, count = Counter(failures).most_common(1)[0]
        notes.append(f"{len(failures):,} conversations failed, {count:,} of them: {what}")
    return notes


def _verdicts(records: Sequence[Record]) -> list[dict[str, Any]]:
    names = ("known", "questioned", "prediction", "score")
    return [{name: record[name] for name in names} for record in records[:MOST_ROWS]]


def _spread(done: Sequence[Done], seed: int, result: Result) -> list[str]:
    """Return a line on the spread over repeats, and put it into the numbers."""
    found = [judge(run.records, draws=1, seed=seed) for run in done]
    values = [one.over_all["accuracy"].value for one in found if one is not None]
    if len(values) < 2:
        return []
    mean = math.fsum(values) / len(values)
    spread = {"mean": mean, "deviation": stdev(values), "low": min(values), "high": max(values)}
    result.metrics = {**result.metrics, "repeats_accuracy": spread, "repeats": values}
    return [
        f"{len(values)} repeats: accuracy over all pairs {mean:.4f}, standard deviation "
        f"{spread['deviation']:.4f}, from {min(values):.4f} to {max(values):.4f}; the table shows "
        "the first"
    ]


def write_run(
    folder: Path,
    result: Result,
    records: Sequence[Record],
    images: Images,
    sections: Sequence[Section] = (),
) -> None:
    """Write report.html and result.json beside the records.

    Args:
        folder: of the run.
        result: gets the files' names.
        records: of the run.
        images: gives the images.
        sections: of the report, before those on pairs.
    """
    result.files["predictions"] = str(folder / PREDICTIONS)
    run = Run(folder / PREDICTIONS, "", list(records))
    parts = list(sections) + scores_sections(records)
    for group, shown in pick(records, PER_GROUP).items():
        parts += [pair_section(group, record, [run], images) for record in shown]
    write_report(folder / "report.html", result, parts)
    result.save(folder)


def scores_sections(records: Sequence[Record]) -> list[Section]:
    """Return the histograms of graded scores of labelled pairs, if there are such."""
    scored = [r for r in records if r["score"] is not None and r["label"] is not None]
    if len({record["score"] for record in scored}) < 4:
        return []
    scores = np.array([record["score"] for record in scored], np.float64)
    same = np.array([record["label"] for record in scored], np.int64)
    return [
        Section(
            "Scores",
            "How the scores of both kinds of pair lie; above 0.5 the verdict is same writer.",
            figure=scores_png(scores, same),
            caption="Histograms of the scores of pairs of one writer and of two",
        )
    ]
