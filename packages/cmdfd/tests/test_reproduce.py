"""The experiment's own code, which lies beside the package."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cmdfd.corpus import make_speaker
from cmdfd.data import ArrayClips
from cmdfd.talking import film
from scipy.stats import ttest_1samp

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))
from corpora import SEEN, UNSEEN, Counts, Part, make_parts, mouths, moved
from tables import COMPARED, JS, MEAN, PLAIN, compared, curves, fall, flipped, summarize, verdict


def run(arm, seed, seen, unseen):
    return {
        "arm": arm,
        "seed": seed,
        "auc": {SEEN: seen} | dict.fromkeys(UNSEEN, unseen),
    }


def test_parts_hold_what_is_asked_for():
    parts = make_parts(3, Counts(train=8, teach=3, real=4, fake=1))
    assert Counter(parts["train"].kinds) == {"real": 4, SEEN: 4}
    assert Counter(parts["teach"].kinds) == {"real": 3}
    assert Counter(parts["test"].kinds) == {"real": 4, SEEN: 1} | dict.fromkeys(UNSEEN, 1)
    for part in parts.values():
        assert [label == 0 for label in part.clips.labels] == [k == "real" for k in part.kinds]
        for frames, classes in zip(part.clips.frames, part.classes, strict=True):
            assert frames.shape == (len(classes), 32, 32)
            assert 40 <= len(classes) <= 50


def test_the_mouth_is_in_the_picture():
    speaker, shut = make_speaker(0), np.zeros((6, 4))
    still, open_ = (
        film(speaker, mouth, np.random.default_rng(0), size=64).astype(float).mean(3)
        for mouth in (shut, shut + np.array([1, 0.5, 0, 0]))
    )
    change = np.abs(open_ - still)
    assert mouths(change).sum() > 0.95 * change.sum()


def some(lengths=(26, 30), kinds=("real", "swap")):
    rng = np.random.default_rng(0)
    clips = ArrayClips(
        [rng.integers(60, 180, (n, 8, 8), np.uint8) for n in lengths],
        [np.sin(np.arange(640 * n) / 50).astype(np.float32) / 2 for n in lengths],
        [int(kind != "real") for kind in kinds],
    )
    return Part(clips, list(kinds), [np.zeros(n, int) for n in lengths])


@pytest.mark.parametrize("lag", [-9, 0, 4])
def test_sound_is_moved_and_real_clips_alone(lag):
    part = some()
    found = moved(part, lag, 9)
    assert found.labels == [0]
    np.testing.assert_array_equal(found.frames[0], part.clips.frames[0][9:17])
    begin = 640 * (9 - lag)  # what is heard with a frame was said `lag` frames earlier
    np.testing.assert_array_equal(
        found.waveforms[0], part.clips.waveforms[0][begin : begin + 640 * 8]
    )


def test_signs_are_flipped_exactly():
    assert flipped([0.1, 0.2, 0.3, 0.1, 0.4]) == 2 / 32
    assert flipped([1.0, -1.0]) == 1
    # sums of ±1 ±2 ±3 that are as far from 0 as 1 + 2 - 3 = 0: all
    assert flipped([1, 2, -3]) == 1
    assert flipped([1, 2, 3, -1]) == 6 / 16


def test_a_verdict_needs_an_interval_without_zero():
    few = verdict([0.01, 0.05, -0.01])
    assert few["reads"] == "no effect seen"
    assert few["95 % low"] < 0 < few["95 % high"]
    clear = verdict([-0.05, -0.051, -0.049, -0.05])
    assert clear["reads"] == "lower"
    assert clear["p (t)"] == pytest.approx(ttest_1samp([-0.05, -0.051, -0.049, -0.05], 0).pvalue)
    assert clear["seeds that agree"] == "4 of 4"
    assert verdict([0.0, 0.0])["reads"] == "no effect seen"


def test_arms_are_paired_by_seed():
    runs = [run(PLAIN, 0, 0.9, 0.6), run(PLAIN, 1, 0.9, 0.5), run(PLAIN, 2, 0.9, 0.1)]
    runs += [run(JS, 1, 0.9, 0.55), run(JS, 0, 0.9, 0.66)]
    rows = compared(runs)
    assert COMPARED[0] == (JS, PLAIN)
    assert {(row["first"], row["second"]) for row in rows} == {(JS, PLAIN)}
    assert rows[0]["AUC of"] == MEAN
    assert rows[0]["first - second"] == pytest.approx(0.055)
    assert rows[0]["seeds that agree"] == "2 of 2"


def test_a_table_has_a_row_per_arm():
    table = summarize([run(PLAIN, 0, 0.9, 0.6), run(PLAIN, 1, 0.7, 0.4)])
    assert len(table) == 1
    assert table[0][MEAN] == pytest.approx(0.5)
    assert table[0][f"{SEEN} std"] == pytest.approx(0.02**0.5)
    assert summarize([run(PLAIN, 0, 0.9, 0.6)], "by correlation") == []


def test_correlation_falls_where_sound_is_far_off():
    late = {"-9": 0.4, "-3": 0.9, "0": 0.8, "1": 0.6, "6": 0.2}
    assert fall(late) == pytest.approx(0.7 - 0.3)
    table = curves([run(PLAIN, 0, 0.9, 0.6) | {"moved": late}])
    assert table[0]["falls"] == pytest.approx(0.4)
    assert table[0]["+6"] == 0.2
