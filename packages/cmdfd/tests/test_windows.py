from __future__ import annotations

import numpy as np
import pytest
import torch
from cmdfd.data import AVSample, legacy_mfcc
from cmdfd.features import clip_mfcc
from cmdfd.losses import correlation
from cmdfd.windows import FrameScores, per_second, score_clips, window_starts
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError


@given(frames=st.integers(1, 400), window=st.integers(1, 130), data=st.data())
def test_windows_see_every_frame_and_end_with_the_clip(frames, window, data):
    hop = data.draw(st.integers(1, window))
    starts = window_starts(frames, window, hop)
    count = min(frames, window)
    seen = np.zeros(frames, int)
    for start in starts:
        assert 0 <= start <= frames - count
        seen[start : start + count] += 1
    assert seen.min() >= 1
    assert starts == sorted(set(starts))
    assert starts[-1] + count == frames


def sample(frames, seed=0):
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 255, (frames, 4, 4)).astype(np.uint8)
    return AVSample(pictures, rng.standard_normal(640 * frames).astype(np.float32) / 9)


def mean_of_window(mfcc, frames):
    """Says of each frame its brightness plus the mean brightness of the window."""
    bright = frames.float().mean((2, 3))
    together = mfcc.mean(2).unflatten(1, (-1, 4)).mean(2)
    return bright + bright.mean(1, keepdim=True), together


@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_overlapping_windows_are_averaged_whatever_the_batches(budget):
    lengths = {"a": 7, "b": 40, "c": 20, "d": 21}
    clips = {name: sample(length, seed=length) for name, length in lengths.items()}
    how = {"window": 20, "hop": 8, "frames_per_batch": budget}
    found = dict(score_clips(mean_of_window, clips.items(), **how))
    assert set(found) == set(clips)
    for name, clip in clips.items():
        count = min(20, lengths[name])
        sums, seen = np.zeros((2, lengths[name])), np.zeros(lengths[name])
        for start in window_starts(lengths[name], 20, 8):
            span = slice(start, start + count)
            wave = torch.from_numpy(clip.waveform[640 * start : 640 * (start + count)])
            said = mean_of_window(
                clip_mfcc(wave[None], count), torch.from_numpy(clip.frames[span])[None]
            )
            sums[:, span] += torch.stack(said)[:, 0].numpy()
            seen[span] += 1
        np.testing.assert_allclose(found[name].margin, sums[0] / seen, rtol=1e-5)
        np.testing.assert_allclose(found[name].correlation, sums[1] / seen, rtol=1e-4)


def test_other_features_are_those_that_the_network_gets():
    one, got = sample(30), []

    def judge(mfcc, frames):
        got.append(mfcc)
        return mean_of_window(mfcc, frames)

    list(score_clips(judge, [("a", one)], features=legacy_mfcc))
    assert torch.equal(got[0], legacy_mfcc(torch.from_numpy(one.waveform)[None], 30))
    assert not torch.allclose(got[0], clip_mfcc(torch.from_numpy(one.waveform)[None], 30))


def test_batches_hold_no_more_frames_than_said():
    sizes = []

    def judge(mfcc, frames):
        sizes.append(frames.shape[0] * frames.shape[1])
        return mean_of_window(mfcc, frames)

    clips = [(name, sample(length)) for name, length in (("long", 600), ("short", 30))]
    assert len(list(score_clips(judge, clips, window=50, hop=10, frames_per_batch=120))) == 2
    assert max(sizes) <= 120
    assert sum(sizes) == 50 * 56 + 30


def test_a_short_clip_is_what_the_network_says_of_it(tiny):
    clip = AVSample(np.full((12, 16, 16), 90, np.uint8), sample(12).waveform)

    def judge(mfcc, frames):
        with torch.no_grad():
            out = tiny(mfcc, frames)
        return out.logits[..., 1] - out.logits[..., 0], correlation(out.audio, out.visual)

    ((_, found),) = score_clips(judge, [(0, clip)], window=125, hop=25)
    margin, together = judge(
        clip_mfcc(torch.from_numpy(clip.waveform)[None], 12), torch.from_numpy(clip.frames)[None]
    )
    np.testing.assert_allclose(found.margin, margin[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(found.correlation, together[0].numpy(), atol=1e-5)
    assert found.score == pytest.approx(float(margin.mean()), abs=1e-5)


def test_seconds_and_their_ends():
    assert per_second(np.arange(50.0)).tolist() == [12.0, 37.0]
    assert per_second(np.array([1.0, 2.0])).tolist() == [1.5]
    assert len(per_second(np.zeros(51))) == 3
    assert FrameScores(np.array([1, 3], np.float32), np.zeros(2, np.float32)).score == 2


def test_bad_arguments_and_scores_that_are_not_finite():
    with pytest.raises(ValueError, match="1 <= hop <= window"):
        window_starts(10, 5, 6)

    def judge(mfcc, frames):
        return frames.float().mean((2, 3)) * torch.nan, frames.float().mean((2, 3))

    with pytest.raises(DataError, match=r"clip a\.mp4: the network's scores are not finite"):
        list(score_clips(judge, [("a.mp4", sample(9))]))
