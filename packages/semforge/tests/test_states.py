from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from semforge.states import enumerate_states


@st.composite
def rules(draw):
    n = draw(st.integers(2, 6))
    pairs = st.lists(st.permutations(range(n)).map(lambda order: tuple(order[:2])), max_size=3)
    groups = st.lists(
        st.tuples(st.integers(0, n - 1), st.lists(st.integers(0, n - 1), min_size=1, max_size=3)),
        max_size=2,
    )
    return n, {
        "subsumption": draw(pairs),
        "exclusion": draw(pairs),
        "any_parent": draw(groups),
        "any_child": draw(groups),
    }


@given(rules())
def test_they_are_those_that_break_no_rule(drawn):
    n, rule = drawn
    legal = [
        list(y)
        for y in itertools.product((0, 1), repeat=n)
        if all(y[a] or not y[b] for a, b in rule["subsumption"])
        and not any(y[a] and y[b] for a, b in rule["exclusion"])
        and all(
            not y[node] or any(y[one] for one in some)
            for node, some in (*rule["any_parent"], *rule["any_child"])
        )
    ]
    assert enumerate_states(n, **rule).tolist() == legal


def test_twenty_nodes():
    states = enumerate_states(20, subsumption=[(0, i) for i in range(1, 20)])
    assert states.shape == (2**19 + 1, 20)
    assert states.dtype == torch.uint8
    assert states[-1].all()


@pytest.mark.parametrize("n", [0, 21, 1000])
def test_more_nodes_are_refused_with_advice(n):
    with pytest.raises(ValueError, match=r"1 to 20 nodes.*merge"):
        enumerate_states(n)
