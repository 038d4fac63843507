from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from vlm_hv.budget import Budget, BudgetOptions, guess_prompt_tokens
from vlm_hv.conversation import Answer, Message, Request
from vlm_hv.images import encode


def request(size: int = 512, max_tokens: int = 100, text: str = "same?") -> Request:
    picture = encode(Image.new("RGB", (size, size)), "k")
    return Request((Message("user", (text, picture)),), max_tokens, 0.0, 0)


def answer(prompt: int | None, completion: int | None, text: str = "Yes") -> Answer:
    return Answer(text, prompt, completion, 0.1, "stop", "m")


def test_guess_counts_tiles_and_text() -> None:
    assert guess_prompt_tokens(request(512)) == 9 + max(85 + 170, -(-(512**2) // 750))
    assert guess_prompt_tokens(request(513)) == 9 + 85 + 4 * 170
    assert guess_prompt_tokens(request(text="a" * 300)) - guess_prompt_tokens(request()) >= 98


def test_cost_is_by_the_million() -> None:
    budget = Budget(BudgetOptions(price_in=2.0, price_out=8.0))
    reserved = budget.begin(request())
    budget.end(reserved, request(), answer(1_000_000, 500_000))
    assert budget.cost == 6.0
    assert Budget.unlimited().cost is None


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 100)), max_size=30),
    st.integers(200, 20_000),
)
def test_ceiling_is_never_passed_where_the_guess_holds(
    used: list[tuple[int, int]], limit: int
) -> None:
    budget, asked = Budget(BudgetOptions(max_tokens_total=limit)), request()
    for prompt, completion in used:
        if not budget.fits(asked):
            break
        reserved = budget.begin(asked)
        known = min(prompt, reserved[0])
        budget.end(reserved, asked, answer(known, completion))
        assert budget.prompt_tokens + budget.completion_tokens <= limit


def test_guess_learns_from_what_is_told() -> None:
    budget, asked = Budget(BudgetOptions(max_tokens_total=100_000)), request(max_tokens=1)
    reserved = budget.begin(asked)
    budget.end(reserved, asked, answer(40_000, 1))  # a server that counts pictures dearly
    assert budget.begin(asked)[0] == pytest.approx(40_000, rel=1e-3)
    assert not budget.fits(asked)


def test_requests_under_way_count_with_the_most() -> None:
    asked = request(max_tokens=1000)
    most = guess_prompt_tokens(asked) + 1000
    budget = Budget(BudgetOptions(max_tokens_total=2 * most))
    first = budget.begin(asked)
    budget.begin(asked)
    assert not budget.fits(asked)
    budget.end(first, asked, answer(10, 1))
    assert not budget.fits(asked)
    third = Budget(BudgetOptions(max_tokens_total=2 * most))
    third.end(third.begin(asked), asked, None)
    assert (third.prompt_tokens, third.completion_tokens) == (0, 0)


def test_what_is_not_told_is_guessed() -> None:
    budget, asked = Budget.unlimited(), request()
    budget.end(budget.begin(asked), asked, answer(None, None, "a" * 30))
    assert budget.prompt_tokens == guess_prompt_tokens(asked)
    assert (budget.completion_tokens, budget.guessed) == (10, 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_cost": 5.0}, "--max-tokens-total bounds"),
        ({"price_in": 1.0}, "belong together"),
        ({"max_cost": -1.0, "price_in": 1.0, "price_out": 1.0}, "--max-cost"),
        ({"price_in": float("nan"), "price_out": 1.0}, "--price-in"),
        ({"max_tokens_total": 0}, "--max-tokens-total"),
    ],
)
def test_options(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BudgetOptions(**wrong)
