from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from vlm_hv import prompts
from vlm_hv.conversation import Answer, Failure, Request
from vlm_hv.findings import SCHEMA, read_structured
from vlm_hv.images import PictureOptions, pictures
from vlm_hv.modes import AskOptions, Opinion, conversations, decide

WORDS = prompts.load("forensic_v1")
SHOWN = pictures(Image.new("L", (8, 8), 10), Image.new("L", (8, 8), 200), PictureOptions())
SWAPPED = (SHOWN[1], SHOWN[0])


def answer(text: str, **more: Any) -> Answer:
    return Answer(text, 700, 20, 0.5, more.pop("finish_reason", "stop"), "m", **more)


def hold(
    options: AskOptions, *replies: Answer | Failure, shown: Any = SHOWN
) -> tuple[list[Request], list[Opinion]]:
    """Hold all conversations on one pair; every one hears the same replies."""
    asked, opinions = [], []
    for conversation in conversations(WORDS, options, shown, shown[::-1]):
        request = next(conversation)
        for reply in replies:
            asked.append(request)
            try:
                request = conversation.send(reply)
            except StopIteration as end:
                opinions.append(end.value)
                break
    return asked, opinions


def test_cot2_is_the_papers_protocol() -> None:
    asked, (opinion,) = hold(AskOptions(), answer("1. a: same."), answer("Decision: Yes"))
    first, second = asked
    assert [m.role for m in first.messages] == ["system", "user"]
    assert first.messages[1].parts == (
        WORDS.explain,
        "Known sample:",
        SHOWN[0],
        "Questioned sample:",
        SHOWN[1],
    )
    assert second.messages[:2] == first.messages
    assert [m.role for m in second.messages[2:]] == ["assistant", "user"]
    assert second.messages[2].parts == ("1. a: same.",)
    assert second.messages[3].parts == (WORDS.decide,)
    assert (opinion.decision, opinion.score, opinion.explanation) == ("same", 1.0, "1. a: same.")
    assert AskOptions().turns == 2


def test_cot2_without_an_explanation_is_not_asked_to_decide() -> None:
    asked, (opinion,) = hold(AskOptions(), answer("  "), answer("Yes"))
    assert len(asked) == 1
    assert (opinion.decision, opinion.score, opinion.problems) == (
        "unknown",
        None,
        ("empty answer",),
    )


def test_failed_second_turn_keeps_the_first_answer() -> None:
    _, (opinion,) = hold(AskOptions(), answer("x"), Failure("429: slow down", True))
    assert (opinion.failure, opinion.retryable, len(opinion.answers)) == ("429: slow down", True, 1)
    assert decide([opinion]).status == "failed"


def test_cut_off_answers_are_named() -> None:
    _, (opinion,) = hold(AskOptions(mode="direct"), answer("The", finish_reason="length"))
    assert opinion.problems == ("cut off at --max-tokens",)


def test_compat_parser_reads_as_the_authors_do() -> None:
    text = "There is no doubt that it is the same person."
    for parser, decision in (("sensible", "same"), ("compat", "different")):
        options = AskOptions(mode="direct", parser=parser)  # type: ignore[arg-type]
        assert hold(options, answer(text))[1][0].decision == decision


GOOD: dict[str, Any] = {
    "findings": [
        {"feature": "n", "known": "round", "questioned": "pointed"}
        | {"known_box": [0.1, 0.2, 0.3, 0.4], "questioned_box": None}
    ],
    "explanation": "They differ.",
    "probability": 0.2,
    "decision": "different",
}


def test_json_mode_asks_for_the_schema_and_reads_it() -> None:
    asked, (opinion,) = hold(AskOptions(mode="json"), answer(json.dumps(GOOD)))
    assert asked[0].schema == SCHEMA
    assert (opinion.decision, opinion.score, opinion.explanation) == (
        "different",
        0.2,
        "They differ.",
    )
    assert opinion.findings[0].known_box == (0.1, 0.2, 0.3, 0.4)
    assert opinion.problems == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"probability": 1.5}, "probability is 1.5"),
        ({"probability": True}, "probability is True"),
        ({"probability": "high"}, "probability is 'high'"),
        ({"decision": "Yes"}, "decision is 'Yes'"),
        (
            {"findings": [{"feature": "n"}]},
            "finding 1: feature, known and questioned must be texts",
        ),
        ({"findings": ["n"]}, "finding 1: no object"),
        (
            {"findings": [GOOD["findings"][0] | {"known_box": [0.4, 0.2, 0.3, 0.4]}]},
            r"finding 1: known_box is [0.4, 0.2, 0.3, 0.4]",
        ),
        ({"findings": None}, "findings are no list"),
        ({"explanation": 3}, "explanation is no text"),
    ],
)
def test_json_that_departs_from_the_schema(change: dict[str, Any], problem: str) -> None:
    found = read_structured(json.dumps(GOOD | change))
    assert found.problems == (problem,)
    assert found.decision == ("same" if change.get("decision") == "Yes" else "different")
    assert all(f.known_box is None or f.known_box[0] < f.known_box[2] for f in found.findings)


def test_answer_without_json_is_read_as_words() -> None:
    found = read_structured("Different writers.")
    assert (found.decision, found.problems) == ("different", ("no JSON object",))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_value_in_any_key_is_survived(value: Any) -> None:
    for key in GOOD:
        found = read_structured(json.dumps(GOOD | {key: value}))
        assert found.decision in ("same", "different", "unknown")
        assert found.probability is None or 0 <= found.probability <= 1


@given(st.floats(-50, 0), st.floats(-50, 0))
def test_logprob_score_is_the_share_of_yes(yes: float, no: float) -> None:
    told = {"yes": yes, "no": no}
    asked, (opinion,) = hold(AskOptions(mode="logprob"), answer("", choice_logprobs=told))
    assert asked[0].choices == ("yes", "no")
    exact = math.exp(yes) / (math.exp(yes) + math.exp(no))
    assert opinion.score == pytest.approx(exact, abs=1e-12)
    if abs(exact - 0.5) > 1e-12:
        assert opinion.decision == ("same" if yes > no else "different")


@pytest.mark.parametrize(
    ("told", "score", "status"),
    [
        ({"yes": -0.1, "no": -math.inf}, 1.0, "answered"),
        ({"yes": -math.inf, "no": -0.1}, 0.0, "answered"),
        ({"yes": -math.inf, "no": -math.inf}, None, "unknown"),
        (None, None, "failed"),
    ],
)
def test_logprob_at_the_edges(told: Any, score: float | None, status: str) -> None:
    _, opinions = hold(AskOptions(mode="logprob"), answer("", choice_logprobs=told))
    verdict = decide(opinions)
    assert (verdict.score, verdict.status) == (score, status)


def test_swap_shows_the_questioned_sample_first_and_turns_findings_back() -> None:
    asked, opinions = hold(AskOptions(mode="json", swap=True), answer(json.dumps(GOOD)))
    assert [request.pictures for request in asked] == [SHOWN, SWAPPED]
    straight, turned = (opinion.findings[0] for opinion in opinions)
    assert (straight.known, straight.questioned) == ("round", "pointed")
    assert (turned.known, turned.questioned) == ("pointed", "round")
    assert (turned.known_box, turned.questioned_box) == (None, (0.1, 0.2, 0.3, 0.4))


def test_boxes_on_a_swapped_canvas_are_dropped() -> None:
    canvas = SHOWN[:1]
    _, opinions = hold(AskOptions(mode="json", swap=True), answer(json.dumps(GOOD)), shown=canvas)
    assert opinions[0].findings[0].known_box is not None
    assert opinions[1].findings[0].questioned_box is None


def test_labels_stand_before_pictures_and_alone_without_them() -> None:
    for shown, labels in (
        (SHOWN, [WORDS.known_label, WORDS.questioned_label]),
        (SHOWN[:1], [WORDS.canvas_label]),
        ((), [WORDS.known_label, WORDS.questioned_label]),
    ):
        asked, _ = hold(AskOptions(mode="direct"), answer("Yes"), shown=shown)
        assert asked[0].messages[-1].parts[1::2] == tuple(labels) or not shown
        assert asked[0].messages[-1].text == "\n".join([WORDS.direct, *labels])
        assert asked[0].pictures == shown


def test_self_consistency_draws_different_samples() -> None:
    options = AskOptions(mode="direct", samples=3, temperature=0.7, seed=5, swap=True)
    asked, opinions = hold(options, answer("Yes"))
    assert [request.seed for request in asked] == [5, 6, 7, 5, 6, 7]
    assert len({request.digest() for request in asked}) == 6 == len(opinions) == options.turns


opinion = st.builds(
    Opinion,
    decision=st.sampled_from(["same", "different"]),
    score=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    swapped=st.booleans(),
    sample=st.integers(0, 9),
)


@given(st.lists(opinion, min_size=1, max_size=6, unique_by=lambda o: (o.swapped, o.sample)))
def test_verdict_does_not_depend_on_the_order(opinions: list[Opinion]) -> None:
    verdict = decide(opinions)
    assert verdict == decide(opinions[::-1])
    assert verdict.score == pytest.approx(sum(o.score or 0 for o in opinions) / len(opinions))


@given(opinion, opinion)
def test_swap_average_is_symmetric(one: Opinion, other: Opinion) -> None:
    """Asking about (Q, K) hears the same answers with the orders exchanged."""

    def asked(first: Opinion, second: Opinion) -> Any:
        pair = [(first, False), (second, True)]
        found = decide([Opinion(o.decision, o.score, swapped=swapped) for o, swapped in pair])
        return found.decision, found.score, found.status, found.order_agrees

    assert asked(one, other) == asked(other, one)


def test_verdicts_of_several() -> None:
    yes, no, none = Opinion("same", 1.0), Opinion("different", 0.0, swapped=True), Opinion()
    failed = Opinion(failure="500", swapped=True, sample=1)
    tie = decide([yes, no])
    assert (tie.decision, tie.score, tie.status, tie.order_agrees) == (
        "unknown",
        0.5,
        "unknown",
        False,
    )
    assert decide([yes, none]).score == 1.0
    assert decide([yes, failed]).status == "partial"
    assert decide([failed]).status == "failed"
    assert decide([none]).order_agrees is None
    with pytest.raises(ValueError, match="must not be empty"):
        decide([])


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "cot3"},
        {"samples": 0},
        {"samples": 3},
        {"samples": 3, "temperature": 1, "mode": "logprob"},
        {"temperature": -1},
        {"temperature": math.nan},
        {"max_tokens": 0},
    ],
)
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="--"):
        AskOptions(**wrong)
