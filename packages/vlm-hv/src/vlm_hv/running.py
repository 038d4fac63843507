"""A run over many pairs: asked, recorded as they end, gone on with after a stop; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from papercommons.errors import DataError

from vlm_hv.budget import Budget
from vlm_hv.cache import Cache
from vlm_hv.cases import CaseList
from vlm_hv.conversation import Backend, Picture
from vlm_hv.images import ABLATIONS, Ablation, PictureOptions, pictures, shuffled
from vlm_hv.modes import AskOptions, Conversation, Opinion, conversations, decide
from vlm_hv.prompts import Prompts
from vlm_hv.records import Record, make_record, read_records, to_line, write_records
from vlm_hv.scheduler import Scheduler


@dataclass
class Run:
    """What a run did.

    Attributes:
        records: of all pairs that are settled, by number.
        stopped: why pairs are missing; empty if none is.
        sent: requests put to the backend.
        hits: requests that the cache answered.
        kept: pairs taken over from the run before.
        prompt_tokens: of this run's answers.
        completion_tokens: likewise.
        cost: likewise, None without prices.
    """

    records: list[Record]
    stopped: str
    sent: int
    hits: int
    kept: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


def run_settings(
    backend: Backend,
    prompts: Prompts,
    ask: AskOptions,
    options: PictureOptions,
    ablation: Ablation,
) -> dict[str, Any]:
    """Return what decides the answers, as plain types: records of one file agree in it.

    Args:
        backend: whom to ask.
        prompts: the words.
        ask: the way to ask.
        options: the pictures.
        ablation: what is done to them.
    """
    return {
        "backend": backend.name,
        "model": backend.model,
        "base_url": getattr(backend, "base_url", None),
        "weights": getattr(backend, "digest", None),
        "prompt": prompts.name,
        "prompt_sha256": prompts.sha256,
        "subject": prompts.subject,
        **asdict(ask),
        **asdict(options),
        "ablation": ablation,
    }


@dataclass
class _Desk:
    """Turns pairs into conversations and opinions into records.

    Attributes:
        places: for each pair, whose pictures it gets.
        todo: numbers of the pairs to ask about.
        price: of some tokens.
        shown: pictures of the pairs under way.
        heard: opinions on them.
    """

    cases: CaseList
    prompts: Prompts
    ask: AskOptions
    options: PictureOptions
    ablation: Ablation
    places: list[int]
    todo: list[int]
    settings: Mapping[str, Any]
    price: Callable[[Record], float | None]
    shown: dict[int, tuple[Picture, ...]] = field(default_factory=dict)
    heard: dict[int, list[Opinion]] = field(default_factory=dict)

    def conversations(self) -> Iterator[tuple[int, Conversation]]:
        for number in self.todo:
            shown, swapped = self._pictures(number)
            self.shown[number] = shown
            for conversation in conversations(self.prompts, self.ask, shown, swapped):
                yield number, conversation

    def _pictures(self, number: int) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
        if self.ablation == "text-only":
            return (), ()
        case = self.cases.cases[self.places[number]]
        images = (self.cases.read(case.known), self.cases.read(case.questioned))
        blank, names = self.ablation == "blank", (case.known, case.questioned)
        shown = pictures(*images, self.options, blank=blank, names=names)
        if not self.ask.swap:
            return shown, ()
        if len(shown) == 2:
            return shown, (shown[1], shown[0])
        other = pictures(*images[::-1], self.options, blank=blank, names=names[::-1])
        return shown, other

    def hear(self, number: int, opinion: Opinion) -> Record | None:
        """Take an opinion; give the pair's record if it was the last."""
        heard = self.heard.setdefault(number, [])
        heard.append(opinion)
        if len(heard) < self.ask.samples * (2 if self.ask.swap else 1):
            return None
        shown, verdict = self.shown.pop(number), decide(self.heard.pop(number))
        case = self.cases.cases[number]
        record = make_record(number, case, verdict, shown, self.settings)
        record["cost"] = self.price(record)
        return record


def run_cases(
    cases: CaseList,
    backend: Backend,
    prompts: Prompts,
    ask: AskOptions,
    *,
    out: str | Path,
    options: PictureOptions | None = None,
    ablation: Ablation = "none",
    budget: Budget | None = None,
    cache: Cache | None = None,
    batch_size: int = 1,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    ended: Callable[[Record], None] = lambda record: None,
) -> Run:
    """Ask about all pairs and write a record of each; the file is in the order of the list at last.

    A record is written as soon as its pair is settled, so a run that was killed goes on with
    `resume`: pairs that are answered or unknown are kept, those that failed, even in part, are
    asked anew, and the cache answers what was heard before.

    Args:
        cases: the pairs.
        backend: whom to ask.
        prompts: the words.
        ask: the way to ask.
        out: the .jsonl file.
        options: sizes and layout of the pictures.
        ablation: none; or a control: blank pictures, those of other pairs (shuffle), or text-only.
        budget: what it may cost.
        cache: of answers.
        batch_size: requests per call of the backend.
        workers: calls at a time.
        resume: go on with `out` if it is there.
        overwrite: replace `out`.
        ended: called with each new record.

    Raises:
        DataError: `out` is there and neither `resume` nor `overwrite` is given, it holds other
            pairs or settings, an image cannot be read, the first request failed, or every answer
            was empty.
        ValueError: an unknown ablation, or `resume` and `overwrite` together.
    """
    options = options or PictureOptions()
    if ablation not in ABLATIONS:
        raise ValueError(f"--ablate must be one of {', '.join(ABLATIONS)}, got {ablation!r}")
    out = Path(out)
    settings = run_settings(backend, prompts, ask, options, ablation)
    if ablation == "shuffle":
        settings["shuffled_among"] = len(cases.cases)
    kept = _kept(out, cases, settings, resume=resume, overwrite=overwrite)
    count = len(cases.cases)
    places = shuffled(count, ask.seed) if ablation == "shuffle" else list(range(count))
    todo = [number for number in range(count) if number not in kept]
    if ablation != "text-only":  # before anything is spent
        for name in dict.fromkeys(n for i in todo for n in _names(cases, places[i])):
            cases.read(name)
    budget = budget or Budget.unlimited()
    desk = _Desk(cases, prompts, ask, options, ablation, places, todo, settings, _pricer(budget))
    scheduler = Scheduler(
        backend, cache or Cache(None, backend), budget, batch_size=batch_size, workers=workers
    )
    write_records(out, list(kept.values()))
    found = dict(kept)
    with out.open("a", encoding="utf-8") as file:
        for number, opinion in scheduler.run(desk.conversations()):
            record = desk.hear(number, opinion)
            if record is not None:
                _append(file, record)
                found[number] = record
                ended(record)
    records = [found[number] for number in sorted(found)]
    write_records(out, records)
    _check_answers(out, records)
    return Run(
        records,
        scheduler.stopped,
        scheduler.sent,
        scheduler.hits,
        len(kept),
        budget.prompt_tokens,
        budget.completion_tokens,
        budget.cost,
    )


def _names(cases: CaseList, number: int) -> tuple[str, str]:
    return cases.cases[number].known, cases.cases[number].questioned


def _append(file: IO[str], record: Record) -> None:
    file.write(to_line(record))
    file.flush()


def _pricer(budget: Budget) -> Callable[[Record], float | None]:
    def price(record: Record) -> float | None:
        tokens = record["tokens"]
        return budget.price(tokens["prompt"] or 0, tokens["completion"] or 0)

    return price


def _kept(
    out: Path, cases: CaseList, settings: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> dict[int, Record]:
    """Return the settled records of the run before, by number."""
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other; give one")
    if out.is_dir():
        raise DataError(f"{out}: --out must be a file like predictions.jsonl, this is a folder")
    if not out.exists() or overwrite or not out.stat().st_size:
        return {}
    if not resume:
        raise DataError(f"{out}: is there already; pass --resume, --overwrite, or another --out")
    records = read_records(out, torn=True)
    for record in records:
        _check_resumed(out, record, cases, settings)
    settled = [record for record in records if record["status"] in ("answered", "unknown")]
    return {record["pair"]: record for record in settled}


def _check_resumed(out: Path, record: Record, cases: CaseList, settings: Mapping[str, Any]) -> None:
    number, before = record["pair"], record["settings"]
    names = [record["known"], record["questioned"]]
    if number >= len(cases.cases):
        raise DataError(f"{out}: holds pair {number + 1}, the list has {len(cases.cases)} only")
    case = cases.cases[number]
    if names != [case.known, case.questioned]:
        raise DataError(
            f"{out}: pair {number + 1} is {' and '.join(names)}, in the list {case.known} and "
            f"{case.questioned}; give the same --pairs, or another --out"
        )
    for name in dict.fromkeys([*settings, *before]):
        if before.get(name) != settings.get(name):
            raise DataError(
                f"{out}: cannot resume: {name} was {before.get(name)!r} and is now "
                f"{settings.get(name)!r}; give the same value, or another --out"
            )


def _check_answers(out: Path, records: list[Record]) -> None:
    heard = [answer for record in records for answer in record["answers"]]
    if heard and not any(a["text"].strip() or a["choice_logprobs"] for a in heard):
        raise DataError(
            f"{out}: the model gave an empty answer to all {len(records)} pairs; a larger "
            "--max-tokens may help where a model thinks before it speaks, else take another model"
        )
