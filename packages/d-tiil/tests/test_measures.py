"""Measures of one pair and of sets, against brute force and known cases."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from d_tiil.evaluation import TITLES, Judgement, comparison, sections
from d_tiil.findings import Finding, as_bytes, finding_of, to_size
from d_tiil.measures import iou, iou_curve, judge_all, measure_pair, precision_area
from d_tiil.records import ArrayMask, Record
from d_tiil.set_measures import detection, fit_threshold, token_scores, with_best
from d_tiil.settings import LocateSettings, MapSettings
from d_tiil.word_spans import find_word
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as made

CAPTION = "a red circle left of a blue square"
SIZE = (8, 8)


def box(top, left, bottom, right, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def record(name="r", label="inconsistent", mask=None, words=("red",), **more):
    spans = [place for word in words for place in find_word(CAPTION, word)]
    return Record(
        name,
        np.zeros((*SIZE, 3), np.uint8),
        CAPTION,
        label,
        None if mask is None else ArrayMask(mask),
        tuple(spans),
        **more,
    )


def word(text):
    return find_word(CAPTION, text)[0]


def test_a_pair_by_hand():
    truth, found = box(0, 0, 4, 4), box(0, 2, 4, 6)
    values = found * 200 + truth * 40
    finding = Finding(
        3.5, found, values.astype(np.uint8), (word("blue"), word("red circle")), word("red circle")
    )
    pair = record(mask=truth, changed=ArrayMask(box(0, 2, 4, 4)), kind="color", source="s")
    row = measure_pair(pair, finding, SIZE).row
    assert (row["name"], row["kind"], row["source"], row["inconsistent"]) == ("r", "color", "s", 1)
    assert row["score"] == 3.5
    assert row["iou"] == pytest.approx(8 / 24)
    assert row["iou_changed"] == pytest.approx(8 / 16)
    assert (row["word_top1"], row["word_tp"], row["word_fp"], row["word_fn"]) == (1.0, 1, 2, 0)
    # 240: 8 of truth; 200: 8 others; 40: 8 of truth; 0: 40 others
    assert row["pixel_ap"] == pytest.approx((1.0 * 8 + 16 / 24 * 8) / 16)
    assert row["pixel_auc"] == pytest.approx((8 * 48 + 8 * 40) / (16 * 48))
    without = measure_pair(pair, Finding(map=values.astype(np.uint8)), SIZE, threshold=0.9).row
    assert without["iou"] == pytest.approx(0.5)  # above 229.5
    assert "word_top1" not in without
    assert without["score"] is None
    missed = measure_pair(pair, Finding(words=()), SIZE).row
    assert (missed["word_top1"], missed["word_fn"]) == (0.0, 1)
    with pytest.raises(ValueError, match="threshold"):
        measure_pair(pair, finding, SIZE, threshold=1.0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        measure_pair(pair, Finding(map=np.full(SIZE, 1.5)), SIZE)


def test_consistent_pairs_controls_and_pairs_without_truth():
    found = box(0, 0, 4, 4)
    finding = Finding(0.0, found, found.astype(np.float32), (word("left"),))
    row = measure_pair(record(label="consistent", words=()), finding, SIZE).row
    assert row["false_alarm_area"] == 0.25
    assert (row["word_tp"], row["word_fp"], row["word_fn"]) == (0, 1, 0)
    assert "iou" not in row
    touched = ArrayMask(box(0, 0, 4, 8))
    control = record(label="consistent", words=(), edited="image", changed=touched)
    row = measure_pair(control, finding, SIZE).row
    assert (row["control_area"], row["trace_iou"], row["trace_auc"]) == (0.25, 0.5, 0.75)
    assert "false_alarm_area" not in row
    unknown = Record("u", np.zeros((*SIZE, 3), np.uint8), CAPTION)
    measured = measure_pair(unknown, finding, SIZE)
    assert measured.row["inconsistent"] is None
    assert set(measured.row) == {
        "name",
        "kind",
        "edited",
        "split",
        "source",
        "inconsistent",
        "score",
    }
    (same,) = judge_all(lambda pair: finding, [unknown])
    assert same.row == measured.row


@given(made(np.uint8, (5, 4)), made(bool, (5, 4)))
def test_the_curve_is_the_iou_at_every_threshold(values, truth):
    curve = iou_curve(values, truth)
    for level in (0, 3, 127, 254):
        assert curve[level] == iou(values > level, truth)
    assert (np.diff((values[None] > np.arange(255)[:, None, None]).sum((1, 2))) <= 0).all()


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12))
def test_average_precision_against_brute_force(pairs):
    scores, truth = np.array([s for s, _ in pairs]), np.array([t for _, t in pairs])
    counts = [np.bincount(scores[truth == kind], minlength=5) for kind in (True, False)]
    area, before = 0.0, 0
    for level in range(4, -1, -1):
        called = scores >= level
        hits = (called & truth).sum()
        if called.any():
            area += (hits - before) * hits / called.sum()
        before = hits
    wanted = area / truth.sum() if truth.any() else math.nan
    assert precision_area(*counts) == pytest.approx(wanted, nan_ok=True)
    doubled = precision_area(*(np.stack([2 * part, part]) for part in counts))
    assert doubled == pytest.approx([wanted, wanted], nan_ok=True)


def test_the_best_threshold_is_of_the_set_and_not_of_each_pair():
    truth = box(0, 0, 4, 4)
    faint, strong = truth * 100 + box(4, 4, 8, 8) * 40, truth * 200 + box(4, 4, 8, 8) * 90
    measured = [
        measure_pair(record(f"r{k}", mask=truth), Finding(map=values.astype(np.uint8)), SIZE)
        for k, values in enumerate((faint, strong))
    ]
    rows, best = with_best(measured)
    assert 90 / 255 <= best["iou"] < 100 / 255
    assert [row["iou_best"] for row in rows] == [1.0, 1.0]
    assert [row["iou"] for row in rows] == [1.0, 0.5]
    assert all("iou_best" not in one.row for one in measured)
    assert with_best([measure_pair(record(), Finding(), SIZE)])[1] == {}


def scored(score, truth, **more):
    row = {"name": "", "kind": "", "edited": "", "split": "", "source": ""}
    return row | {"inconsistent": truth, "score": score} | more


def test_detection_at_a_threshold_of_other_pairs():
    other = [scored(s, t) for s, t in ((1, 0), (2, 0), (3, 1), (4, 1))]
    other += [scored(9, 0, edited="image"), scored(None, 1), scored(-7, None)]
    cut = fit_threshold(other)
    assert 2 <= cut < 3
    rows = [scored(s, t) for s, t in ((2.4, 0), (1, 0), (3, 1), (2.6, 1), (0, 1))]
    found = detection([*rows, *other[4:]], threshold=cut, draws=200)
    assert found["auc"].value == pytest.approx(4 / 6)
    assert found["ap"].value == pytest.approx((1 + 1 + 3 / 5) / 3)
    assert found["accuracy"].value == 0.8
    assert found["detection_rate"].value == pytest.approx(2 / 3)
    assert found["ap"].low <= found["ap"].value <= found["ap"].high
    assert set(detection(rows, draws=10)) == {"auc", "ap"}
    assert detection(other[5:], draws=10) == {}
    assert set(detection(rows[2:], draws=10)) == {"auc"}  # of inconsistent pairs alone
    with pytest.raises(ValueError, match="consistent and of"):
        fit_threshold(rows[:2])


def test_a_threshold_that_calls_all_inconsistent_does_so():
    rows = [scored(s, t) for s, t in ((5, 0), (1, 1), (2, 1), (3, 1))]
    found = detection(rows, threshold=fit_threshold(rows), draws=10)
    assert found["accuracy"].value == 0.75
    assert found["detection_rate"].value == 1


def test_tokens_are_counted_over_the_set():
    rows = [
        scored(0, 1, word_tp=1, word_fp=1, word_fn=0),
        scored(0, 1, word_tp=0, word_fp=0, word_fn=2),
        scored(0, 0, word_tp=0, word_fp=1, word_fn=0),
        scored(0, 0),
    ]
    found = token_scores(rows, draws=50)
    values = [found[name].value for name in ("precision", "recall", "f1")]
    assert values == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert token_scores(rows[2:]) == {}  # no word is known to be wrong


def test_pairs_of_one_source_are_drawn_together():
    rows = [
        scored(s, t, source=source)
        for source, (low, high) in {"a": (0, 1), "b": (1, 0)}.items()
        for s, t in ((low, 0), (high, 1))
    ]
    together = detection(rows, draws=400)["ap"]
    assert (together.low, together.high) == (0.5, 1.0)  # one source twice, or both
    assert together.value == pytest.approx(0.5)


@pytest.fixture
def judged():
    truth, rng = box(0, 0, 4, 4), np.random.default_rng(0)
    records, found = [], []
    for number in range(24):
        kind, label = (
            ("color", "shape")[number % 2],
            ("consistent", "inconsistent")[number // 2 % 2],
        )
        control = label == "consistent" and number % 8 >= 4
        records.append(
            record(
                f"r{number}",
                label,
                truth if label == "inconsistent" else None,
                ("red",) if label == "inconsistent" else (),
                kind=kind,
                edited="image" if control else "",
                changed=ArrayMask(truth) if control else None,
                source=f"s{number // 4}",
            )
        )
        hit = label == "inconsistent" and kind == "color"
        values = truth * hit * 0.9 + rng.random(SIZE) * 0.1
        words = (word("red"),) if hit else ()
        found.append(Finding(float(hit) + rng.random() * 0.1, None, values, words, word("red")))
    return [measure_pair(r, f, SIZE) for r, f in zip(records, found, strict=True)]


def test_a_judgement_by_kind(judged):
    found = Judgement.of("ours", judged, threshold=0.5, draws=100)
    assert found.groups() == ["all", "color", "shape"]
    assert found.value("iou", "color").value == 1
    assert found.value("iou", "shape").value == 0
    assert found.value("iou").value == pytest.approx(0.5)
    assert found.value("auc", "color").value == 1
    assert found.value("auc", "shape").value < 0.95
    assert found.value("token_recall", "all").value == pytest.approx(0.5)
    assert found.value("detection_rate", "color").value == 1
    assert found.value("false_alarm_area").pairs == 6
    assert found.value("control_area").pairs == 6
    assert 0.2 < found.value("trace_auc").value < 0.8
    assert found.value("control_auc").pairs == 24
    assert found.value("iou", "none") is None
    table = found.table()
    assert [row["kind"] for row in table] == ["all", "color", "shape"]
    assert [row["pairs"] for row in table] == [24, 12, 12]
    assert set(table[0]) == {"kind", "pairs"} | {
        TITLES[name]
        for name in (
            "iou",
            "iou_best",
            "pixel_ap",
            "false_alarm_area",
            "word_top1",
            "token_f1",
            "auc",
            "ap",
            "accuracy",
        )
    }
    assert all(value.measure in TITLES for value in found.values)
    notes = "\n".join(found.notes())
    assert "12 inconsistent and 12 consistent pairs of 6 sources" in notes
    assert "6 of the consistent pairs are controls" in notes
    assert "ours: called inconsistent above a score of 0.5" in notes
    numbers = found.numbers()
    assert numbers["groups"]["color"]["iou"]["value"] == 1
    assert 0.09 <= numbers["best_thresholds"]["iou"] < 0.95


def test_methods_side_by_side(judged):
    first = Judgement.of("first", judged, draws=20)
    second = Judgement.of("second", [judged[0], judged[2], judged[3]], draws=20)
    rows = comparison([first, second], group="color")
    assert [row["method"] for row in rows] == ["first", "second"]
    assert rows[0]["IoU"] == rows[1]["IoU"] == 1
    parts = sections([first, second])
    assert [part.heading for part in parts] == [
        "Kind: color",
        "Kind: shape",
        "All measures",
    ]
    assert len(parts[-1].rows) == len(first.values) + len(second.values)
    with pytest.raises(ValueError, match="no pairs"):
        Judgement.of("none", [])


def test_a_kind_without_consistent_pairs_is_told_from_all_of_them():
    def measured(kind, label, score):
        pair = record(f"{kind}{score}", label, words=(), kind=kind)
        return measure_pair(pair, Finding(score=score), SIZE)

    found = Judgement.of(
        "m",
        [
            measured("orig", "consistent", 0.0),
            measured("orig", "consistent", 2.0),
            measured("text", "inconsistent", 1.0),
            measured("face", "inconsistent", 3.0),
        ],
        draws=20,
    )
    assert found.groups() == ["all", "face", "text"]
    values = [found.value("auc", group).value for group in ("all", "face", "text")]
    assert values == [0.75, 1.0, 0.5]


def test_findings_of_the_pipeline():
    mask = box(0, 0, 4, 4)
    words = [
        SimpleNamespace(text=t, start=s, end=e, score=v)
        for t, s, e, v in ((*word("red"), 1), (*word("blue"), 2))
    ]
    spot = np.zeros((9, 9), np.uint8)
    spot[4, 4] = 255
    result = SimpleNamespace(
        score=30.0,
        mask=mask,
        final=SimpleNamespace(values=spot),
        words=(),
        candidates=tuple(words),
        settings=LocateSettings(),
    )
    found = finding_of(result)
    assert (found.score, found.words, found.top) == (70.0, (), word("blue"))
    assert found.mask is mask
    assert found.map.sum() == pytest.approx(1)
    assert found.map[4, 4] < 0.2  # under the blur of the settings
    sharp = LocateSettings(maps=MapSettings(blur=0.0))
    result.settings = sharp
    assert (as_bytes(finding_of(result).map) == spot).all()
    only = finding_of(SimpleNamespace(score=30.0, mask=mask, final=None, words=(), candidates=()))
    assert (only.mask, only.map, only.words, only.top) == (None,) * 4


def test_sizes():
    small = np.array([[0, 1], [2, 3]], np.uint8)
    assert to_size(small, (4, 2)).tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert to_size(to_size(small, (6, 8)), (2, 2)).tolist() == small.tolist()
    assert as_bytes(np.array([0.0, 0.5, 1.0])).tolist() == [0, 128, 255]
    every = np.arange(256, dtype=np.uint8)
    assert (as_bytes(every.astype(np.float32) / 255) == every).all()
