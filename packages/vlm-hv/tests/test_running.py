from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from papercommons.data.pairs import make_pairs
from papercommons.data.words import open_words
from papercommons.errors import DataError
from vlm_hv import prompts
from vlm_hv.budget import Budget, BudgetOptions, guess_prompt_tokens
from vlm_hv.cache import Cache
from vlm_hv.cases import CaseList, from_pairs
from vlm_hv.conversation import Answer, Failure, Request
from vlm_hv.images import PictureOptions
from vlm_hv.modes import AskOptions
from vlm_hv.records import read_records
from vlm_hv.running import Run, run_cases
from vlm_hv.scheduler import IN_A_ROW

WORDS = prompts.load("forensic_v1")
SMALL = PictureOptions(min_side=0, border=0)


class Model:
    """Answers from the pictures alone: Yes where both are about as dark."""

    name, model = "transformers", "by-ink"

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.batches: list[int] = []
        self.fail: Callable[[Request, int], Answer | Failure | None] = lambda request, n: None

    def answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        self.batches.append(len(requests))
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Answer | Failure:
        self.asked.append(request)
        sums = [sum(picture.png) % 97 for picture in request.pictures] or [0, 0]
        text = "Yes" if abs(sums[0] - sums[-1]) < 40 else "No"
        prompt = guess_prompt_tokens(request)
        told = self.fail(request, len(self.asked))
        return told or Answer(text, prompt, 5, 0.1, "stop", "by-ink-1")


@pytest.fixture(scope="module")
def cases(words: Path) -> CaseList:
    opened = open_words(words)
    pairs = make_pairs(opened, range(len(opened)), seed=1)
    chosen = np.random.default_rng(0).permutation(len(pairs))[:24]
    return from_pairs(pairs.take(chosen), opened)


@pytest.fixture
def run(cases: CaseList, tmp_path: Path) -> Callable[..., Run]:
    def run(backend: Any, ask: AskOptions | None = None, **more: Any) -> Run:
        defaults: dict[str, Any] = {"out": tmp_path / "predictions.jsonl", "options": SMALL}
        of = more.pop("of", cases)
        return run_cases(of, backend, WORDS, ask or AskOptions(mode="direct"), **(defaults | more))

    return run


def plain(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in ("date", "seconds")} for r in records]


def test_one_record_per_pair(run: Callable[..., Run], cases: CaseList, tmp_path: Path) -> None:
    done = run(Model(), AskOptions())
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == len(cases.cases) == len(done.records)
    for number, (line, case) in enumerate(zip(lines, cases.cases, strict=True)):
        record = json.loads(line)
        assert record["pair"] == number
        assert [record["known"], record["questioned"]] == [case.known, case.questioned]
        assert (record["label"], tuple(record["writers"])) == (case.label, case.writers)
        assert record["prediction"] in ("same", "different")
        assert (record["status"], len(record["answers"])) == ("answered", 2)
        assert [image["name"] for image in record["images"]] == [case.known, case.questioned]
        assert record["tokens"]["completion"] == 10
        assert record["answers"][0]["model"] == "by-ink-1"
        assert record["settings"]["model"] == "by-ink"
        assert record["settings"]["prompt"] == "forensic_v1"
        assert record["cost"] is None
        assert record["date"].startswith("20")
    assert read_records(tmp_path / "predictions.jsonl") == done.records


@pytest.mark.parametrize("ask", [AskOptions(swap=True), AskOptions(mode="direct")])
def test_neither_workers_nor_batches_nor_order_matter(
    run: Callable[..., Run], cases: CaseList, tmp_path: Path, ask: AskOptions
) -> None:
    def slowly(request: Request, number: int) -> None:
        time.sleep(0.002 * (number % 5))

    first = run(Model(), ask)
    for workers, batch_size in ((1, 7), (5, 1), (3, 4)):
        model = Model()
        model.fail = slowly
        other = run(
            model, ask, out=tmp_path / "other.jsonl", overwrite=True, workers=workers,
            batch_size=batch_size,
        )  # fmt: skip
        assert plain(other.records) == plain(first.records)
        assert max(model.batches) == batch_size
    backwards = CaseList(cases.cases[::-1], cases.read, cases.digest)
    turned = run(Model(), ask, of=backwards, out=tmp_path / "turned.jsonl").records[::-1]
    assert [r["prediction"] for r in turned] == [r["prediction"] for r in first.records]


def test_cache_hit_is_no_second_request(run: Callable[..., Run], tmp_path: Path) -> None:
    first, second = Model(), Model()
    kept = Cache(tmp_path / "cache", first)
    one = run(first, AskOptions(), cache=kept)
    two = run(second, AskOptions(), cache=kept, out=tmp_path / "two.jsonl")
    assert (one.sent, one.hits) == (48, 0) == (len(first.asked), 0)
    assert (two.sent, two.hits, second.asked) == (0, 48, [])
    assert plain(one.records) == plain(two.records)


def test_equal_questions_under_way_are_asked_once(
    run: Callable[..., Run], cases: CaseList, tmp_path: Path
) -> None:
    twice = CaseList([*cases.cases[:3], *cases.cases[:3]], cases.read, "")
    model = Model()
    done = run(model, of=twice, workers=6, cache=Cache(tmp_path / "cache", model))
    assert len(model.asked) == 3
    assert [r["prediction"] for r in done.records[:3]] == [
        r["prediction"] for r in done.records[3:]
    ]


def test_resume_asks_only_what_is_missing(
    run: Callable[..., Run], tmp_path: Path, cases: CaseList
) -> None:
    out = tmp_path / "predictions.jsonl"
    whole = run(Model()).records
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:10]) + lines[10][:40])  # killed inside line 11
    model = Model()
    done = run(model, resume=True)
    assert (done.kept, len(model.asked)) == (10, 14)
    assert plain(done.records) == plain(whole)
    asked = {tuple(p.sha256 for p in request.pictures) for request in model.asked}
    answered = {tuple(i["sha256"] for i in record["images"]) for record in whole[:10]}
    assert not asked & answered
    assert run(again := Model(), resume=True).kept == 24
    assert again.asked == []


def test_failed_and_partial_pairs_are_asked_again(run: Callable[..., Run], tmp_path: Path) -> None:
    model = Model()
    kept = Cache(tmp_path / "cache", model)
    model.fail = lambda request, n: Failure("500: boom", True) if n % 7 == 0 else None
    ask = AskOptions(mode="direct", swap=True)
    first = run(model, ask, cache=kept)
    status = [record["status"] for record in first.records]
    assert status.count("partial") == 6
    assert {o["failure"] for r in first.records for o in r["opinions"]} == {"", "500: boom"}
    again = Model()
    second = run(again, ask, cache=kept, resume=True)
    assert len(again.asked) == 6  # the other order of those pairs came from the cache
    assert {record["status"] for record in second.records} <= {"answered", "unknown"}


def test_existing_file_is_not_written_over(run: Callable[..., Run], tmp_path: Path) -> None:
    run(Model())
    with pytest.raises(DataError, match="pass --resume, --overwrite, or another --out"):
        run(Model())
    with pytest.raises(ValueError, match="exclude each other"):
        run(Model(), resume=True, overwrite=True)
    with pytest.raises(DataError, match="must be a file"):
        run(Model(), out=tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ask": AskOptions(mode="direct", swap=True)}, "swap was False and is now True"),
        ({"options": PictureOptions(min_side=0, border=1)}, "border was 0 and is now 1"),
        ({"ablation": "blank"}, "ablation was 'none' and is now 'blank'"),
    ],
)
def test_resume_with_other_settings_is_refused(
    run: Callable[..., Run], change: dict[str, Any], said: str
) -> None:
    run(Model())
    with pytest.raises(DataError, match=f"cannot resume: {said}"):
        run(Model(), resume=True, **change)


def test_resume_with_other_pairs_is_refused(run: Callable[..., Run], cases: CaseList) -> None:
    run(Model())
    with pytest.raises(DataError, match=r"pair 1 is .* in the list"):
        run(Model(), of=CaseList(cases.cases[::-1], cases.read, ""), resume=True)
    with pytest.raises(DataError, match="holds pair 6, the list has 5 only"):
        run(Model(), of=replace(cases, cases=cases.cases[:5]), resume=True)


def test_ceiling_stops_before_the_request_that_would_pass_it(run: Callable[..., Run]) -> None:
    model = Model()
    budget = Budget(BudgetOptions(max_tokens_total=9_000))
    done = run(model, AskOptions(mode="direct", max_tokens=50), budget=budget, workers=4)
    spent = done.prompt_tokens + done.completion_tokens
    next_one = guess_prompt_tokens(model.asked[-1]) + 50
    assert "ceiling of the budget" in done.stopped
    assert spent <= 9_000 < spent + next_one
    assert 0 < len(done.records) == len(model.asked) < 24
    rest = Model()
    assert run(rest, AskOptions(mode="direct", max_tokens=50), resume=True).stopped == ""
    assert len(rest.asked) + len(model.asked) == 24


def test_first_request_runs_alone_and_its_failure_ends_the_run(run: Callable[..., Run]) -> None:
    model = Model()
    model.fail = lambda request, n: Failure("401: the key was refused", False)
    with pytest.raises(DataError, match="the first request failed: 401: the key was refused"):
        run(model, workers=8, batch_size=4)
    assert model.batches == [1]
    assert len(run(Model()).records) == 24  # nothing was written, so nothing is in the way


def test_run_stops_when_everything_fails(run: Callable[..., Run]) -> None:
    model = Model()
    model.fail = lambda request, n: Failure("503: down", True) if n > 2 else None
    done = run(model)
    assert f"{IN_A_ROW} requests failed in a row, the last: 503: down" in done.stopped
    assert len(model.asked) == 2 + IN_A_ROW


def test_empty_answers_throughout_are_an_error(run: Callable[..., Run]) -> None:
    model = Model()
    model.fail = lambda request, n: Answer(" ", 5, 0, 0.1, "length", "m")
    with pytest.raises(DataError, match="an empty answer to all 24 pairs"):
        run(model)


@pytest.mark.parametrize("ablation", ["blank", "shuffle", "text-only"])
def test_controls(run: Callable[..., Run], tmp_path: Path, cases: CaseList, ablation: Any) -> None:
    real, control = Model(), Model()
    run(real)
    done = run(control, ablation=ablation, out=tmp_path / "control.jsonl")
    sent = [tuple(p.sha256 for p in r.pictures) for r in control.asked]
    truth = [tuple(p.sha256 for p in r.pictures) for r in real.asked]
    texts = {request.messages[-1].text for request in control.asked}
    assert texts == {request.messages[-1].text for request in real.asked}
    assert all(record["settings"]["ablation"] == ablation for record in done.records)
    if ablation == "shuffle":
        assert sorted(sent) == sorted(truth)
        assert sum(a == b for a, b in zip(sent, truth, strict=True)) == 0
        assert [r["label"] for r in done.records] == [case.label for case in cases.cases]
    else:  # all questions are equal, so one is asked
        assert len(sent) == 1
        assert len(sent[0]) == (2 if ablation == "blank" else 0)


def test_canvas_is_turned_with_the_order(run: Callable[..., Run], cases: CaseList) -> None:
    model = Model()
    options = PictureOptions(min_side=0, border=0, layout="concat")
    run(
        model,
        AskOptions(mode="direct", swap=True),
        options=options,
        of=replace(cases, cases=cases.cases[:1]),
    )
    straight, turned = (request.pictures for request in model.asked)
    assert len(straight) == len(turned) == 1
    assert straight[0].name == " | ".join([cases.cases[0].known, cases.cases[0].questioned])
    assert straight[0].png != turned[0].png


def test_unreadable_image_is_found_before_anything_is_asked(
    run: Callable[..., Run], cases: CaseList
) -> None:
    def read(name: str) -> Any:
        if name == cases.cases[-1].questioned:
            raise DataError(f"{name}: not an image")
        return cases.read(name)

    model = Model()
    with pytest.raises(DataError, match="not an image"):
        run(model, of=CaseList(cases.cases, read, ""))
    assert model.asked == []


def test_money_is_noted_per_pair(run: Callable[..., Run]) -> None:
    budget = Budget(BudgetOptions(price_in=1.0, price_out=2.0))
    done = run(Model(), budget=budget)
    assert done.cost == pytest.approx(sum(record["cost"] for record in done.records))
    assert done.cost == pytest.approx((done.prompt_tokens + 2 * 5 * 24) / 1e6)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 1: not JSON"),
        (b"[]", "line 1: no object"),
        (b"{}", "line 1: known is None"),
        (b"", "no records in it"),
    ],
)
def test_files_that_are_no_records(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(DataError, match=said):
        read_records(path)


@pytest.mark.parametrize(
    "change",
    [
        {"pair": -1},
        {"prediction": "yes"},
        {"score": 1.5},
        {"score": True},
        {"label": 2},
        {"writers": ["a"]},
        {"status": None},
        {"opinions": None},
    ],
)
def test_records_that_are_wrong(
    run: Callable[..., Run], cases: CaseList, tmp_path: Path, change: dict[str, Any]
) -> None:
    record = run(Model(), of=replace(cases, cases=cases.cases[:1])).records[0]
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(record | change))
    with pytest.raises(DataError, match=f"line 1: .*{next(iter(change))}"):
        read_records(path)


KILLED = """
import sys
from vlm_hv import prompts
from vlm_hv.cases import read_cases
from vlm_hv.endpoint import Endpoint
from vlm_hv.modes import AskOptions
from vlm_hv.running import run_cases
url, pairs, images, out = sys.argv[1:]
backend = Endpoint("tiny", base_url=url)
run_cases(read_cases(pairs, images), backend, prompts.load("forensic_v1"),
          AskOptions(mode="direct"), out=out, workers=2, resume=True)
"""


def test_killed_run_goes_on_without_a_second_request(
    server: Any, words: Path, tmp_path: Path
) -> None:
    """A real process, really killed, against a server that keeps every request."""
    pytest.importorskip("httpx", reason="needs httpx (vlm-hv[api])")
    names = [f"w{w:02d}/{w:02d}_{s}.png" for w in range(4) for s in range(4)]
    rows = [f"{a},{b}" for a, b in itertools.pairwise(names)]
    pairs, out = tmp_path / "pairs.csv", tmp_path / "predictions.jsonl"
    pairs.write_text("known,questioned\n" + "\n".join(rows) + "\n")
    command = [sys.executable, "-c", KILLED, server.url, str(pairs), str(words), str(out)]
    server.delay = 0.1
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not (out.exists() and out.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    answered = {(r["known"], r["questioned"]): r for r in read_records(out, torn=True)}
    assert 5 <= len(answered) < len(rows)
    before, server.delay = len(server.requests), 0.0
    subprocess.run(command, check=True)
    done = read_records(out)
    assert len(done) == len(rows)
    settled = {tuple(i["sha256"] for i in record["images"]) for record in answered.values()}
    later = [
        tuple(hashlib.sha256(png).hexdigest() for png in server.sent_pictures(body))
        for body in server.requests[before:]
    ]
    assert len(later) == len(set(later)) == len(rows) - len(answered)
    assert not settled & set(later)
