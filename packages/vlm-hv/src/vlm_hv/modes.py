"""Ways to ask about a pair, and what their answers come to; needs no torch.

A conversation is a generator: it yields a `Request`, is sent the answer or the failure, and returns
an `Opinion`. So the same code serves one pair at a prompt and thousands side by side.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from vlm_hv.conversation import Answer, Failure, Message, Part, Picture, Request
from vlm_hv.findings import SCHEMA, Finding, read_structured
from vlm_hv.parsing import Decision, parse_decision, parse_decision_compat
from vlm_hv.prompts import Prompts

Mode = Literal["cot2", "json", "direct", "logprob"]
Status = Literal["answered", "unknown", "partial", "failed"]
MODES = ("cot2", "json", "direct", "logprob")
CHOICES = ("yes", "no")
_COMPAT: dict[str, Decision] = {"Yes": "same", "No": "different"}


@dataclass(frozen=True)
class AskOptions:
    """How a pair is asked about.

    Attributes:
        mode: cot2 (paper: explanation, then decision), json (one call, findings with boxes),
            direct (Yes or No), logprob (probability of yes against no; needs token probabilities).
        swap: ask in both orders and average: removes order bias, doubles the cost.
        samples: ask so often and average (self-consistency); needs a temperature above 0.
        temperature: of the sampling; 0 is greedy.
        max_tokens: longest answer of one turn.
        parser: sensible, or compat: the rule of the authors' scripts.
        seed: of the sampling; sample k uses seed + k.
    """

    mode: Mode = "cot2"
    swap: bool = False
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 512
    parser: Literal["sensible", "compat"] = "sensible"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"--mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if not 1 <= self.samples <= 1000:
            raise ValueError(f"--samples must be in [1, 1000], got {self.samples}")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"--temperature must be in [0, 2], got {self.temperature}")
        if self.max_tokens < 1:
            raise ValueError(f"--max-tokens must be >= 1, got {self.max_tokens}")
        if self.samples > 1 and (self.temperature == 0 or self.mode == "logprob"):
            raise ValueError(
                f"--samples {self.samples} would give the same answer each time: it needs "
                "--temperature above 0 and another --mode than logprob"
            )

    @property
    def turns(self) -> int:
        """Requests per pair."""
        return (2 if self.mode == "cot2" else 1) * (2 if self.swap else 1) * self.samples


@dataclass(frozen=True)
class Opinion:
    """What one conversation came to.

    Attributes:
        decision: same, different or unknown.
        score: for same, in [0, 1]: a probability in the modes json and logprob, else 1 or 0; None
            where nothing was decided.
        explanation: free text.
        findings: known first, whatever the order was.
        swapped: whether the questioned sample was shown first.
        sample: number of the repetition.
        answers: of all turns.
        failure: why there is no opinion, empty if there is one.
        retryable: whether a failed conversation may succeed later.
        problems: how answers departed from what was asked for.
    """

    decision: Decision = "unknown"
    score: float | None = None
    explanation: str = ""
    findings: tuple[Finding, ...] = ()
    swapped: bool = False
    sample: int = 0
    answers: tuple[Answer, ...] = ()
    failure: str = ""
    retryable: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What all conversations on a pair came to.

    Attributes:
        decision: by the mean score where there are several opinions (0.5: unknown), else as said.
        score: mean of the opinions' scores, None if none has one.
        explanation: of the first opinion that agrees with the decision, known first if possible.
        findings: of the same.
        status: answered; unknown (nothing was decided); partial (a conversation failed, the rest
            decided); failed (all did).
        order_agrees: whether both orders led to the same decision; None unless both did to one.
        opinions: all of them.
    """

    decision: Decision
    score: float | None
    explanation: str
    findings: tuple[Finding, ...]
    status: Status
    order_agrees: bool | None
    opinions: tuple[Opinion, ...] = field(repr=False)


Conversation = Generator[Request, Answer | Failure, Opinion]


def conversations(
    prompts: Prompts,
    options: AskOptions,
    shown: tuple[Picture, ...],
    shown_swapped: tuple[Picture, ...] = (),
) -> list[Conversation]:
    """Return the conversations on one pair.

    Args:
        prompts: the words.
        options: the way to ask.
        shown: two pictures, known first; or one canvas; or none (a control).
        shown_swapped: the same with the questioned sample first; used with `AskOptions.swap`.
    """
    orders = [(False, shown)] + [(True, shown_swapped)] * options.swap
    return [
        _converse(prompts, options, pictures, swapped, sample)
        for swapped, pictures in orders
        for sample in range(options.samples)
    ]


def _converse(
    prompts: Prompts,
    options: AskOptions,
    shown: tuple[Picture, ...],
    swapped: bool,
    sample: int,
) -> Conversation:
    ask = {"cot2": _cot2, "json": _json, "direct": _direct, "logprob": _logprob}[options.mode]
    options = replace(options, seed=options.seed + sample)
    opinion = yield from ask(prompts, options, shown)
    findings = opinion.findings
    if swapped:
        findings = tuple(finding.turned() for finding in findings)
        if len(shown) == 1:  # boxes of the swapped canvas fit no picture of the report
            findings = tuple(replace(f, known_box=None, questioned_box=None) for f in findings)
    return replace(opinion, findings=findings, swapped=swapped, sample=sample)


def opening(prompts: Prompts, question: str, shown: tuple[Picture, ...]) -> tuple[Message, ...]:
    """Return the system message (if any) and the user's, pictures after their labels.

    Args:
        prompts: the words.
        question: what is asked, before the pictures.
        shown: two pictures, one canvas, or none: then only the labels stand there.
    """
    labels = [prompts.known_label, prompts.questioned_label]
    if len(shown) == 1:
        labels = [prompts.canvas_label]
    parts: list[Part] = [question]
    for place, label in enumerate(labels):
        parts += [label] if label else []
        parts += shown[place : place + 1]
    system = (Message("system", (prompts.system,)),) if prompts.system else ()
    return (*system, Message("user", tuple(parts)))


def _request(options: AskOptions, messages: tuple[Message, ...]) -> Request:
    return Request(messages, options.max_tokens, options.temperature, options.seed)


def _failed(failure: Failure, *before: Answer) -> Opinion:
    return Opinion(answers=before, failure=failure.reason, retryable=failure.retryable)


def _oddities(*answers: Answer) -> tuple[str, ...]:
    empty = ["empty answer" for answer in answers if not answer.text.strip()]
    cut = ["cut off at --max-tokens" for answer in answers if answer.finish_reason == "length"]
    return (*empty, *cut)


def _decide(text: str, options: AskOptions) -> Decision:
    if options.parser == "compat":
        return _COMPAT.get(parse_decision_compat(text), "unknown")
    return parse_decision(text)


_HARD: dict[Decision, float | None] = {"same": 1.0, "different": 0.0, "unknown": None}


def _cot2(prompts: Prompts, options: AskOptions, shown: tuple[Picture, ...]) -> Conversation:
    messages = opening(prompts, prompts.explain, shown)
    first = yield _request(options, messages)
    if isinstance(first, Failure):
        return _failed(first)
    if not first.text.strip():  # nothing to base a decision on
        return Opinion(answers=(first,), problems=_oddities(first))
    said = Message("assistant", (first.text,))
    second = yield _request(options, (*messages, said, Message("user", (prompts.decide,))))
    if isinstance(second, Failure):
        return _failed(second, first)
    decision = _decide(second.text, options)
    return Opinion(
        decision,
        _HARD[decision],
        first.text.strip(),
        answers=(first, second),
        problems=_oddities(first, second),
    )


def _json(prompts: Prompts, options: AskOptions, shown: tuple[Picture, ...]) -> Conversation:
    request = _request(options, opening(prompts, prompts.one_turn_json, shown))
    answer = yield replace(request, schema=SCHEMA)
    if isinstance(answer, Failure):
        return _failed(answer)
    found = read_structured(answer.text)
    score = _HARD[found.decision] if found.probability is None else found.probability
    return Opinion(
        found.decision,
        score,
        found.explanation,
        found.findings,
        answers=(answer,),
        problems=(*_oddities(answer), *found.problems),
    )


def _direct(prompts: Prompts, options: AskOptions, shown: tuple[Picture, ...]) -> Conversation:
    answer = yield _request(options, opening(prompts, prompts.direct, shown))
    if isinstance(answer, Failure):
        return _failed(answer)
    decision = _decide(answer.text, options)
    said = answer.text.strip()
    return Opinion(decision, _HARD[decision], said, answers=(answer,), problems=_oddities(answer))


def _logprob(prompts: Prompts, options: AskOptions, shown: tuple[Picture, ...]) -> Conversation:
    request = _request(options, opening(prompts, prompts.direct, shown))
    answer = yield replace(request, max_tokens=1, temperature=0.0, choices=CHOICES)
    if isinstance(answer, Failure):
        return _failed(answer)
    if answer.choice_logprobs is None:
        why = "the backend gives no token probabilities; take --mode direct"
        return replace(_failed(Failure(why, retryable=False)), answers=(answer,))
    yes, no = (answer.choice_logprobs.get(word, -math.inf) for word in CHOICES)
    if yes == no == -math.inf:
        return Opinion(answers=(answer,), problems=("neither yes nor no is a likely answer",))
    score = 0.5 * (1 + math.tanh((yes - no) / 2)) if math.isfinite(yes - no) else float(yes > no)
    return Opinion(_by_score(score), score, answers=(answer,))


def _by_score(score: float) -> Decision:
    return "unknown" if score == 0.5 else "same" if score > 0.5 else "different"


def decide(opinions: Sequence[Opinion]) -> Verdict:
    """Return what the opinions on one pair come to; their order does not matter.

    Args:
        opinions: at least one.

    Raises:
        ValueError: there is none.
    """
    if not opinions:
        raise ValueError("opinions must not be empty")
    ordered = tuple(sorted(opinions, key=lambda opinion: (opinion.swapped, opinion.sample)))
    given = [opinion for opinion in ordered if not opinion.failure]
    scores = [opinion.score for opinion in given if opinion.score is not None]
    score = math.fsum(scores) / len(scores) if scores else None
    decision: Decision = "unknown"
    if len(given) == 1:
        decision = given[0].decision
    elif score is not None:
        decision = _by_score(score)
    agreeing = [opinion for opinion in given if opinion.decision == decision] or given
    chosen = agreeing[0] if agreeing else Opinion()
    if len(given) < len(ordered):
        status: Status = "partial" if given else "failed"
    else:
        status = "unknown" if decision == "unknown" else "answered"
    agrees = _orders_agree(given)
    return Verdict(decision, score, chosen.explanation, chosen.findings, status, agrees, ordered)


def _orders_agree(opinions: Sequence[Opinion]) -> bool | None:
    sides: list[Decision] = []
    for swapped in (False, True):
        scores = [o.score for o in opinions if o.swapped == swapped and o.score is not None]
        if not scores:
            return None
        own = [o.decision for o in opinions if o.swapped == swapped]
        sides.append(own[0] if len(own) == 1 else _by_score(math.fsum(scores) / len(scores)))
    return None if "unknown" in sides else sides[0] == sides[1]
