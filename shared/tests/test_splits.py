from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.data.splits import hash_split, stratified_split
from papercommons.errors import DataError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
keys = st.lists(st.text(max_size=3), max_size=60)
labels = st.lists(st.integers(0, 4), max_size=80)
seeds = st.integers(0, 99)


def try_hash_split(items, shares, seed):
    """Return the parts, also where some are empty, which is an error by itself."""
    try:
        return hash_split(items, shares, seed=seed)
    except DataError:
        return None


@given(keys, seeds)
def test_hash_split_is_a_partition_of_whole_groups(items, seed):
    parts = try_hash_split(items, SHARES, seed)
    if parts is None:
        return
    assert list(parts) == list(SHARES)
    assert sorted(index for part in parts.values() for index in part) == list(range(len(items)))
    groups = [{items[index] for index in part} for part in parts.values()]
    assert sum(map(len, groups)) == len(set(items))
    assert all(part == sorted(part) for part in parts.values())


@given(st.lists(st.text(max_size=3), max_size=20), seeds, st.randoms())
def test_adding_items_moves_no_other(added, seed, random):
    items = [f"writer {number}" for number in range(60)]
    before = hash_split(items, SHARES, seed=seed)
    place = {items[index]: name for name, part in before.items() for index in part}
    more = items + added
    random.shuffle(more)
    after = hash_split(more, SHARES, seed=seed)
    for name, part in after.items():
        assert all(place[more[index]] == name for index in part if more[index] in place)


def test_hash_split_is_the_same_everywhere():
    parts = hash_split([str(number) for number in range(12)], {"a": 0.5, "b": 0.5}, seed=3)
    assert parts == {"a": [1, 2, 4, 5, 8, 11], "b": [0, 3, 6, 7, 9, 10]}


def test_hash_split_has_about_the_sizes_asked_for():
    items = [f"p{number}" for number in range(20_000)]
    parts = hash_split(items, SHARES)
    for name, share in SHARES.items():
        assert abs(len(parts[name]) - 20_000 * share) < 4 * (20_000 * share * (1 - share)) ** 0.5


def test_seeds_and_odd_keys():
    items = [f"p{number}" for number in range(100)] + ["\udcff.png"]
    assert hash_split(items, SHARES, seed=1) != hash_split(items, SHARES, seed=2)
    assert hash_split(items, SHARES, seed=1) == hash_split(items, SHARES, seed=1)


def test_an_empty_split_is_an_error():
    with pytest.raises(DataError, match=r"split val \(10% of 1 groups\) would be empty; use more"):
        hash_split(["one"] * 50, {"val": 0.1, "train": 0.9}, seed=1)
    assert hash_split(["one"] * 50, {"train": 1.0, "val": 0.0})["val"] == []


@pytest.mark.parametrize("split", [hash_split, stratified_split])
@pytest.mark.parametrize(
    "shares",
    [{"a": 0.5, "b": 0.6}, {"a": 1.5, "b": -0.5}, {"a": float("nan"), "b": 0.5}, {"a": 0.5}, {}],
)
def test_shares_must_be_shares(split, shares):
    with pytest.raises(ValueError, match="fractions must be >= 0 and sum to 1, got"):
        split([1, 2, 3], shares)


@given(labels, seeds, st.sampled_from([SHARES, {"a": 1.0}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}]))
def test_stratified_split_divides_each_class_alike(classes, seed, shares):
    parts = stratified_split(classes, shares, seed=seed)
    assert sorted(index for part in parts.values() for index in part) == list(range(len(classes)))
    assert all(part == sorted(part) for part in parts.values())
    sizes = Counter(classes)
    for name, part in parts.items():
        found = Counter(classes[index] for index in part)
        for label, size in sizes.items():
            assert abs(found[label] - shares[name] * size) <= 1


def test_stratified_split_is_random_within_a_class():
    one, other = (stratified_split([0] * 100, SHARES, seed=seed)["test"] for seed in (1, 2))
    assert one != other
    assert len(one) == len(other) == 20
    assert one != list(range(80, 100))
    assert one == stratified_split([0] * 100, SHARES, seed=1)["test"]
