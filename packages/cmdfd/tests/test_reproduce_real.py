"""The experiment on real clips, on clips that are none."""

from __future__ import annotations

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from cmdfd.audit import audit_entries
from cmdfd.baselines import scores_of
from cmdfd.data import ArrayClips
from cmdfd.headers import with_headers
from cmdfd.lists import read_list
from cmdfd.preparing_files import Preparation
from cmdfd.preparing_lists import open_or_prepare
from papercommons.errors import DataError
from papercommons.metrics.roc import unchecked_auc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))
from corpora import Part
from real_clips import BOTH, MADE, TEACHERS, interval, of_seed, summarize
from real_sets import cut, loaded, rounds, training_clips, with_people, write_swapped

PEOPLE = ("ann", "ben", "cem", "dee")


def talk(number, frames):
    """Grey noise of a person's brightness, and a tone of a person's pitch."""
    rng = np.random.default_rng(number)
    pictures = rng.integers(50 * number, 50 * number + 40, (frames, 48, 48)).astype(np.uint8)
    return pictures, 0.5 * np.sin(np.arange(640 * frames) * 0.05 * (number + 1))


@pytest.fixture(scope="module")
def swapped(tmp_path_factory):
    """A folder with each of four people's pictures with each one's sound, and the clips cut out."""
    pytest.importorskip("av")
    from papercommons.video.writing import write_clip

    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("swapped")
    for number, name in enumerate(PEOPLE):
        frames, waveform = talk(number, 52 - number)
        write_clip(data / f"{name}.mp4", frames, waveform=waveform)
    write_swapped(data, out)
    clips = open_or_prepare([out / "list.csv"], out / "cache", how=Preparation("none", 48))
    return out, clips


def test_everybody_meets_everybody_once():
    found = list(rounds("abcdef"))
    assert all(sorted(p for pair in turn for p in pair) == list("abcdef") for turn in found)
    met = [frozenset(pair) for turn in found for pair in turn]
    assert len(met) == 15
    assert set(met) == {frozenset(pair) for pair in combinations("abcdef", 2)}


def test_swapped_clips_have_the_other_persons_sound_and_one_length(swapped):
    folder, clips = swapped
    assert len(clips) == 16
    assert sum(clips.labels) == 12
    for k, entry in enumerate(clips.entries):
        assert clips.labels[k] == (entry.face != entry.voice)
        sample = clips.read(k, 0, clips.lengths[k])
        face, voice = PEOPLE.index(entry.face), PEOPLE.index(entry.voice)
        assert sample.frames.mean() == pytest.approx(50 * face + 19.5, abs=6)
        peak = np.abs(np.fft.rfft(sample.waveform)).argmax() * 2 * np.pi / len(sample.waveform)
        assert peak == pytest.approx(0.05 * (voice + 1), abs=1e-3)
    assert len(set(clips.lengths)) == 1
    audit = audit_entries(with_headers(read_list(folder / "list.csv"))[0]).overall
    assert (audit.auc, audit.ties) == (0.5, 1.0)


def test_one_stream_alone_tells_nothing(swapped):
    _, clips = swapped
    judged = loaded(clips, with_people(clips, {"ann", "dee"}))
    fake = np.array(judged.labels) == 1
    assert fake.tolist() == [False, True, True, False]
    heard = scores_of(judged, lambda batch: batch.waveform.diff(dim=1).square().mean(1))
    seen = scores_of(judged, lambda batch: batch.frames.float().mean((1, 2, 3)).round())
    for said in (heard, seen):
        assert said.max() > 1.5 * said.min()
        assert unchecked_auc(said.numpy().round(3), fake) == 0.5


def test_who_is_judged_is_in_no_training(swapped):
    _, clips = swapped
    found = training_clips(clips, {"ann", "dee"}, turns=3)
    assert sorted(found.labels) == [0] * 6 + [1] * 6
    levels = {round((frames.mean() - 19.5) / 50) for frames in found.frames}
    assert levels == {1, 2}


def test_clips_are_cut_into_whole_pieces():
    frames, waveform = talk(1, 50)
    found = cut(ArrayClips([frames, frames[:24]], [waveform, waveform[: 24 * 640]], [0, 1]))
    assert found.labels == [0, 0, 1]
    np.testing.assert_array_equal(found.frames[1], frames[24:48])
    np.testing.assert_array_equal(found.waveforms[1], waveform[24 * 640 : 48 * 640])


def test_few_or_odd_clips_are_refused(tmp_path):
    (tmp_path / "one.mp4").touch()
    with pytest.raises(DataError, match="1 clips; expected 4, 6 or so"):
        write_swapped(tmp_path, tmp_path / "out")


def test_people_are_drawn_not_pairs():
    pairs = [("a", "b"), ("c", "d"), ("e", "f")]
    # often one pair alone has both of its people drawn
    assert interval([0.2, 0.5, 0.8], pairs) == pytest.approx((0.2, 0.8))
    assert interval([0.5, 0.5, 0.5], pairs) == pytest.approx((0.5, 0.5))


def test_a_trial(swapped):
    _, clips = swapped
    seen = [talk(k % 4, 40) for k in range(6)]
    made = ArrayClips(*([part[k] for part in seen] for k in (0, 1)), [0, 1] * 3)
    made = ArrayClips(made.frames, [w.astype(np.float32) for w in made.waveforms], made.labels)
    teach = Part(made, ["real"] * 6, [np.zeros(40, int)] * 6)
    torch.set_num_threads(1)
    options = argparse.Namespace(quick=True)
    rows = list(of_seed(options, clips, (teach, made, made), [("ann", "dee")], 0))
    assert {(row["trained on"], row["score"]) for row in rows} == {
        *((name, s) for name in (MADE, BOTH) for s in ("network", "correlation", "sync offset")),
        (TEACHERS, "divergence"),
    }
    table = summarize(rows)
    assert len(table) == len(rows) == 7
    for row, line in zip(rows, table, strict=True):
        said = row["said"]  # own, swapped, swapped, own
        assert line["AUC"] == unchecked_auc(np.array(said), np.array([0, 1, 1, 0]) == 1)
        assert line["higher"] == (said[1] + said[2] > said[0] + said[3])
        assert line["95 % low"] == line["95 % high"] == line["AUC, pieces"]
    before, after = (next(r for r in rows if r["trained on"] == name) for name in (MADE, BOTH))
    assert before["said"] != after["said"]
