from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.video import rates
from papercommons.video.rates import at_rate, check_positive, spaced, whole_frames


def timed(times, length):
    return [(time, length, number) for number, time in enumerate(times)]


@given(
    st.lists(st.floats(0.005, 0.5), min_size=1, max_size=30),
    st.sampled_from([5.0, 12.5, 25.0, 30.0]),
    st.floats(-1, 2),
)
def test_each_chosen_item_is_the_nearest_in_time_or_the_one_held(steps, fps, offset):
    times = np.cumsum(steps)
    usual = np.minimum.accumulate(np.array([*steps[1:], 1.0])).clip(1 / fps)
    chosen = list(at_rate(timed(times, 0.04), fps, times[0] + offset))
    begin = max(times[0], times[0] + offset)
    assert len(chosen) == max(0, int((times[-1] + 0.04 - begin) * fps + 0.05))
    for place, number in enumerate(chosen):
        late = begin + place / fps - times
        nearest = np.abs(late[number]) <= np.abs(late).min() + 3e-6
        held = number + 1 < len(times) and 0 <= late[number] <= steps[number + 1]
        assert nearest or (held and late[number + 1] <= 3e-6 - usual[number] / 2)


def test_the_same_rate_gives_the_same_items_and_double_gives_each_twice():
    items = timed(np.arange(75) / 25, 0.04)
    assert list(at_rate(items, 25)) == list(range(75))
    assert list(at_rate(items, 12.5)) == [*range(0, 73, 2)]
    assert sorted(at_rate(items, 50)) == sorted([*range(75)] * 2)


def test_thirty_per_second_become_twenty_five_without_drift():
    chosen = np.array(list(at_rate(timed(np.arange(300) / 30, 1 / 30), 25)))
    assert len(chosen) == 250
    assert np.abs(chosen / 30 - np.arange(250) / 25).max() <= 1 / 60 + 1e-9


def test_a_picture_is_held_where_equal_ones_are_left_out():
    times = np.array([0, 1, 2, 10, 11, 18, 19, 20]) / 25
    chosen = list(at_rate(timed(times, 0.04), 25))
    assert chosen == [0, 1, *[2] * 8, 3, *[4] * 7, 5, 6, 7]


def test_a_leap_in_time_is_filled_one_by_one():
    endless = at_rate([(0.0, 0.04, "a"), (1e12, 0.04, "b")], 25)
    assert list(itertools.islice(endless, 1000)) == ["a"] * 1000


def test_nothing_gives_nothing():
    assert list(at_rate([], 25)) == []
    assert list(at_rate(timed([0.0], 0.04), 25, 5.0)) == []


def test_a_frame_counts_if_less_than_a_twentieth_of_it_is_missing():
    assert whole_frames(2.999, 25) == 75
    assert whole_frames(2.997, 25) == 74


@given(st.integers(1, 500), st.integers(1, 64))
def test_spaced_numbers_differ_and_reach_both_ends(total, count):
    numbers = spaced(total, count)
    assert len(numbers) == len(set(numbers)) == min(total, count)
    assert numbers[0] == 0
    assert count == 1 or numbers[-1] == total - 1


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_a_value_that_must_be_positive_is_named(value):
    check_positive(fps=25, max_side=None)
    with pytest.raises(ValueError, match="fps must be > 0"):
        check_positive(fps=value)


def test_examples():
    assert doctest.testmod(rates).failed == 0
