from __future__ import annotations

import logging
from pathlib import Path

import pytest
from defi_net.layouts import Sample
from defi_net.sources import split_sources, warn_of_shared
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError

SHARES = st.floats(0, 0.45)


@given(count=st.integers(4, 60), val=SHARES, test=SHARES, seed=st.integers(0, 9))
def test_shares_are_kept_and_no_split_is_empty(count, val, test, seed):
    names = [f"photo {k}" for k in range(count)]
    try:
        split = split_sources(names * 2, {"val": val, "test": test}, seed=seed)
    except DataError:
        assert count < 12
        return
    sizes = {name: list(split.values()).count(name) for name in ("train", "val", "test")}
    assert split.keys() == set(names)
    assert sizes["train"] >= 1
    for name, share in (("val", val), ("test", test)):
        assert sizes[name] == (max(1, round(share * count)) if share else 0)
    assert split == split_sources(names[::-1], {"val": val, "test": test}, seed=seed)


def test_another_seed_gives_another_split():
    names = [str(k) for k in range(30)]
    assert split_sources(names, {"val": 0.3}, seed=0) != split_sources(names, {"val": 0.3}, seed=1)


def test_too_few_photographs_are_told():
    with pytest.raises(DataError, match="2 source photographs are too few for train, val and test"):
        split_sources(["a", "b", "b"], {"val": 0.1, "test": 0.1})
    for shares in ({"val": 0.5, "test": 0.5}, {"val": -0.1}):
        with pytest.raises(ValueError, match="shares must be"):
            split_sources(["a", "b", "c"], shares)


def test_shared_photographs_are_listed(caplog):
    def samples(*sources):
        return [Sample(Path("x.png"), None, source=source) for source in sources]

    splits = {"train": samples("a", "b", ""), "val": samples("c", ""), "test": samples("b", "c")}
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        shared = warn_of_shared(splits)
    assert shared == {"train and test": ["b"], "val and test": ["c"]}
    assert "1 source photographs are in both train and test" in caplog.text
