from __future__ import annotations

import numpy as np
import pytest
import torch
from cmdfd.data import ArrayClips, AVData, AVDataset, AVSample
from cmdfd.features import clip_mfcc
from papercommons.errors import DataError


def made(lengths, labels=None, size=16, seed=0):
    """Clips whose frames and samples say when they are."""
    chance = np.random.default_rng(seed)
    frames = [chance.integers(0, 256, (n, size, size)).astype(np.uint8) for n in lengths]
    waves = [(chance.normal(size=640 * n) / 9).clip(-1, 0.9).astype(np.float32) for n in lengths]
    labels = [k % 2 for k in range(len(lengths))] if labels is None else labels
    return ArrayClips(frames, waves, labels, [f"clip{k}" for k in range(len(lengths))])


def test_a_batch_is_cut_to_its_shortest_clip():
    clips = made([9, 12, 7])
    batch = AVDataset(clips)[[(0, 0), (0, 1), (0, 2)]]
    assert batch.frames.shape == batch.teacher_video.shape == (3, 7, 16, 16)
    assert batch.frames.dtype == torch.uint8
    assert batch.mfcc.shape == (3, 28, 13)
    assert batch.waveform.shape == (3, 640 * 7)
    assert batch.labels.tolist() == [0, 1, 0]
    assert batch.names == ["clip0", "clip1", "clip2"]
    assert np.array_equal(batch.frames[1], clips.frames[1][:7])
    torch.testing.assert_close(batch.mfcc[1], clip_mfcc(torch.from_numpy(clips.waveforms[1]), 7))


def test_pieces_keep_picture_and_sound_together():
    clips = made([40] * 3)
    dataset = AVDataset(clips, max_frames=8, window="random", seed=5)
    starts = set()
    for epoch in range(6):
        batch = dataset[[(epoch, 1)]]
        (start,) = (
            k for k in range(33) if np.array_equal(clips.frames[1][k : k + 8], batch.frames[0])
        )
        assert np.array_equal(
            clips.waveforms[1][640 * start : 640 * (start + 8)], batch.waveform[0]
        )
        starts.add(start)
        again = dataset[[(epoch, 1)]]
        assert torch.equal(again.frames, batch.frames)
    assert len(starts) > 2
    first = AVDataset(clips, max_frames=8)[[(3, 1)]]
    assert np.array_equal(first.frames[0], clips.frames[1][:8])


def test_the_teacher_sees_frames_before_any_change():
    clips = made([6] * 8)
    batch = AVDataset(clips, augmented=True)[[(0, k) for k in range(8)]]
    assert np.array_equal(batch.teacher_video, np.stack(clips.frames))
    changed = [
        not torch.equal(*pair) for pair in zip(batch.frames, batch.teacher_video, strict=True)
    ]
    assert any(changed)
    assert not all(changed)


def test_the_teacher_may_be_given_features_of_lips():
    class WithLips(ArrayClips):
        def read(self, index, start, count):
            plain = super().read(index, start, count)
            return AVSample(plain.frames, plain.waveform, np.full((count, 512), index, np.float32))

    clips = made([6, 8])
    clips = WithLips(clips.frames, clips.waveforms, clips.labels, clips.names)
    batch = AVDataset(clips)[[(0, 1), (0, 0)]]
    assert batch.teacher_video.shape == (2, 6, 512)
    assert batch.teacher_video[:, 0, 0].tolist() == [1, 0]


def test_loaders_give_every_clip():
    data = AVData(
        made([6, 9, 12, 30]),
        val=made([5, 5, 8]),
        frames_per_batch=30,
        max_frames=12,
        eval_frames=6,
        augmented=False,
    )
    shapes = [tuple(batch.frames.shape[:2]) for batch in data.train_dataloader()]
    assert sorted(shapes) == [(2, 6), (2, 12)]
    found = {tuple(b.names): b.frames.shape[1] for b in data.val_dataloader()}
    assert found == {("clip2",): 6, ("clip0", "clip1"): 5}
    assert data.has_val
    assert AVData(made([6, 6])).val_dataloader() == []


def test_what_cannot_be_used_is_told():
    clips = made([6, 6])
    with pytest.raises(DataError, match="training clips are all fake"):
        AVData(made([6, 6], labels=[1, 1]))
    with pytest.raises(DataError, match=r"labels must be 0 \(real\) or 1 \(fake\)"):
        made([6, 6], labels=[0, 2])
    with pytest.raises(DataError, match="must be as many"):
        ArrayClips(clips.frames, clips.waveforms[:1], clips.labels)
    with pytest.raises(DataError, match=r"0: expected frames \(T, 16, 16\), T >= 5"):
        ArrayClips([f[:4] for f in clips.frames], clips.waveforms, clips.labels)
    with pytest.raises(DataError, match="1: expected a waveform of 3840 samples"):
        ArrayClips(clips.frames, [clips.waveforms[0], clips.waveforms[1][1:]], clips.labels)
    with pytest.raises(ValueError, match="max_frames must be >= 5"):
        AVDataset(clips, max_frames=4)
    with pytest.raises(ValueError, match="window must be random or start"):
        AVDataset(clips, window="end")
    with pytest.raises(ValueError, match="frames_per_batch"):
        AVData(clips, frames_per_batch=0)
