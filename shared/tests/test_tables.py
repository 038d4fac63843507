from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from papercommons.metrics.bootstrap import bootstrap_interval
from papercommons.metrics.tables import Summary, compare, float_columns, summarize

NAN = math.nan


def make_rows(count=40, seed=0, **more):
    random = np.random.default_rng(seed)
    return [
        {"name": f"i{n}", "method": "ab"[n % 2], "f1": float(v), "forged": 1, **more}
        for n, v in enumerate(random.random(count))
    ]


def test_means_by_group_with_what_is_missing_and_undefined():
    rows = [
        {"name": "1", "method": "telea", "f1": 0.2, "auc": 0.5},
        {"name": "2", "method": "ns", "f1": 0.4, "auc": NAN},
        {"name": "3", "method": "ns", "f1": 0.9, "auc": 0.7},
        {"name": "4", "method": "none", "fpr": 0.1, "f1": None},
        {"name": "5", "method": "", "fpr": 0.3, "f1": ""},
    ]
    found = {(s.group, s.metric): s for s in summarize(rows, by="method", draws=50)}
    assert found["all", "f1"].value == pytest.approx(0.5)
    assert found["all", "f1"][5:] == (3, 0)
    assert found["all", "auc"].value == pytest.approx(0.6)
    assert found["all", "auc"][5:] == (2, 1)
    assert found["all", "fpr"].value == pytest.approx(0.2)
    assert found["ns", "f1"].value == pytest.approx(0.65)
    assert found["telea", "f1"]._replace(low=0, high=0) == Summary("telea", "f1", 0.2, 0, 0, 1, 0)
    assert math.isnan(found["telea", "f1"].low)  # one source says nothing of others
    groups = {"all": "f1 auc fpr", "none": "fpr", "ns": "f1 auc", "telea": "f1 auc"}
    assert list(found) == [(g, name) for g, names in groups.items() for name in names.split()]


def test_nothing_defined():
    (found,) = summarize([{"auc": NAN}, {"auc": NAN}])
    assert all(map(math.isnan, found[2:5]))
    assert found[5:] == (0, 2)


def test_the_interval_is_that_of_the_mean():
    rows = make_rows(400)
    (found,) = summarize(rows, ["f1"], draws=4000)
    low, high = bootstrap_interval(torch.tensor([row["f1"] for row in rows]), draws=4000)
    assert found.low == pytest.approx(low, abs=0.003)
    assert found.high == pytest.approx(high, abs=0.003)
    (narrow,) = summarize(rows, ["f1"], level=0.5)
    assert found.low < narrow.low < narrow.high < found.high
    assert summarize(rows, ["f1"], seed=1) != summarize(rows, ["f1"], seed=2)
    assert summarize(rows, ["f1"], seed=1) == summarize(rows, ["f1"], seed=1)


def test_images_of_one_source_are_drawn_together():
    """Ten copies of each image say no more than the images themselves."""
    rows = make_rows(30)
    copies = [{**row, "source": row["name"]} for row in rows for _ in range(10)]
    (one,), (ten,) = summarize(rows, ["f1"], seed=3), summarize(copies, ["f1"], seed=3)
    assert ten[2:5] == pytest.approx(one[2:5])
    assert ten.images == 300
    (blind,) = summarize(copies, ["f1"], source="nothing")
    assert (blind.high - blind.low) < 0.5 * (ten.high - ten.low)


def test_many_sources_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr("papercommons.metrics.tables._CHUNK", 100)
    rows = make_rows(30)
    (found,) = summarize(rows, ["f1"], draws=500)
    low, high = bootstrap_interval(torch.tensor([row["f1"] for row in rows]))
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_cells_of_a_file_are_text():
    rows = [{"f1": "0.25", "n": "3"}, {"f1": "0.75", "n": ""}, {"f1": "nan", "n": "1"}]
    assert float_columns(rows) == []
    (found,) = summarize(rows, ["f1"])
    assert (found.value, found.images, found.undefined) == (0.5, 2, 1)


def test_two_tables_are_compared_image_by_image():
    first = make_rows(200)
    noise = np.random.default_rng(1).normal(0.02, 0.01, 200)
    second = [{**row, "f1": row["f1"] + float(e)} for row, e in zip(first, noise, strict=True)]
    second = [*reversed(second[:150]), {"name": "stranger", "f1": 9.0}]
    (found,) = compare(first, second)
    assert found.images == 150
    assert found.value == pytest.approx(noise[:150].mean())
    assert found.second - found.first == pytest.approx(found.value)
    assert found.first == pytest.approx(np.mean([row["f1"] for row in first[:150]]))
    assert 0.01 < found.low < found.value < found.high < 0.03  # far narrower than the two means'
    assert found.higher == pytest.approx((noise[:150] > 0).mean())
    assert found.higher + found.lower == pytest.approx(1)
    (back,) = compare(second, first)
    assert back.value == pytest.approx(-found.value)


def test_a_comparison_by_group_with_undefined_numbers():
    first = [
        {"name": "1", "method": "a", "f1": 0.5, "only": 1.0},
        {"name": "2", "method": "b", "f1": NAN},
        {"name": "3", "method": "b", "f1": 0.25},
        {"name": "4", "method": "b"},
    ]
    second = [{"name": n, "f1": 0.5} for n in "1234"]
    found = {d.group: d for d in compare(first, second, by="method")}
    assert {g: d.value for g, d in found.items()} == {"all": 0.125, "a": 0, "b": 0.25}
    assert (found["b"].images, found["b"].undefined) == (1, 1)
    assert (found["a"].higher, found["a"].lower) == (0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: summarize([]), "a table without rows"),
        (lambda: summarize(make_rows(), level=1.0), r"level in \(0, 1\) and draws >= 1"),
        (lambda: summarize(make_rows(), draws=0), "draws >= 1, got 0.95 and 0"),
        (lambda: summarize(make_rows(), by="engine"), "no row has a engine"),
        (lambda: compare(make_rows(), []), "without rows"),
        (lambda: compare(make_rows(), [{"name": "x", "f1": 1.0}]), "share no name"),
        (lambda: compare(make_rows(), [{"f1": 1.0}]), "has no name"),
        (lambda: compare(2 * make_rows(2), make_rows()), "'i0' is there twice"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
