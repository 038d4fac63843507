from __future__ import annotations

import numpy as np
import pytest
import torch
from cmdfd.baselines import divergence_scores, scores_of, sync_offset, sync_scores
from cmdfd.data import ArrayClips, AVData
from cmdfd.lightning import CMDFDModule
from cmdfd.losses import jeffreys_divergence, jensen_shannon
from cmdfd.model import CMDFDNet
from cmdfd.one_stream import OneStreamNet
from cmdfd.teachers import ContentTeacher
from papercommons.cli import RunOptions
from papercommons.training import fit
from torch.nn import functional as F

SIZES = {
    "dim": 32,
    "visual_width": 4,
    "audio_layers": (1, 1, 1, 1),
    "tcn_layers": 1,
    "heads": 4,
}


def clips(lengths=(9, 7, 9, 12, 7), seed=0):
    rng = np.random.default_rng(seed)
    return ArrayClips(
        [rng.integers(0, 256, (n, 16, 16), np.uint8) for n in lengths],
        [rng.uniform(-1, 1, 640 * n).astype(np.float32) for n in lengths],
        [k % 2 for k in range(len(lengths))],
    )


class Pixels(ContentTeacher):
    """Hears the sign of the sound and sees the brightness; ``bias`` has the device."""

    def __init__(self):
        super().__init__(3)
        self.bias = torch.nn.Parameter(torch.zeros(3))

    def audio_logits(self, audio, frames):
        level = audio.unflatten(1, (-1, 640))[:, :frames].mean(2)
        return 20 * torch.stack([level, -level, 0 * level], 2) + self.bias

    def visual_logits(self, video):
        level = video.float().mean((2, 3)) / 255 - 0.5
        return 20 * torch.stack([level, -level, 0 * level], 2) + self.bias


@pytest.mark.parametrize("stream", ["visual", "audio"])
def test_one_stream_sees_only_its_own(stream, device):
    torch.manual_seed(0)
    net = OneStreamNet(stream, **SIZES).eval().to(device)
    mfcc = torch.randn(2, 2, 24, 13, device=device)
    frames = 255 * torch.rand(2, 2, 6, 16, 16, device=device)
    said = net(mfcc[0], frames[0]).logits
    same, other = net(mfcc[1], frames[0]).logits, net(mfcc[0], frames[1]).logits
    deaf, blind = torch.equal(said, same), torch.equal(said, other)
    assert (deaf, blind) == ((True, False) if stream == "visual" else (False, True))


def test_one_stream_is_the_detector_with_a_stream_in_the_place_of_both(device):
    torch.manual_seed(0)
    whole = CMDFDNet(**SIZES).eval().to(device)
    net = OneStreamNet("audio", **SIZES).eval().to(device)
    kept = {k: v for k, v in whole.state_dict().items() if k in net.state_dict()}
    net.load_state_dict(kept)
    assert not any(name.startswith("visual") for name in net.state_dict())
    whole.embed_visual = lambda frames: whole.embed_audio(mfcc)
    mfcc, frames = torch.randn(2, 24, 13, device=device), torch.zeros(2, 6, 16, 16, device=device)
    for ours, theirs in zip(net(mfcc, frames), whole(mfcc, frames), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("stream", ["visual", "audio"])
def test_one_stream_is_trained_whole(stream):
    module = CMDFDModule(OneStreamNet(stream, **SIZES), lr=1e-3)
    before = {name: p.clone() for name, p in module.net.named_parameters()}
    data = AVData(clips(), frames_per_batch=30, augmented=False)
    fit(module, data, epochs=1, run=RunOptions(accelerator="cpu"))
    learned = {name for name, p in module.net.named_parameters() if p.requires_grad}
    assert {n for n, p in module.net.named_parameters() if not torch.equal(p, before[n])} == learned
    assert module.net.config["stream"] == stream


def test_one_stream_refuses_others():
    with pytest.raises(ValueError, match="visual or audio, got 'both'"):
        OneStreamNet("both", **SIZES)


def test_scores_come_in_the_order_of_the_clips():
    made = clips()
    found = scores_of(
        made,
        lambda batch: torch.stack([batch.frames.float().mean((1, 2, 3)), batch.labels], 1),
        frames_per_batch=20,
    )
    expected = [float(frames.mean()) for frames in made.frames]
    torch.testing.assert_close(found[:, 0], torch.tensor(expected))
    assert found[:, 1].tolist() == list(made.labels)


def test_scores_look_at_the_begin_of_long_clips():
    found = scores_of(clips(), lambda batch: batch.frames.sum((1, 2, 3)), max_frames=6)
    assert found.tolist() == [int(frames[:6].sum()) for frames in clips().frames]


@pytest.mark.parametrize(
    ("target", "divergence"), [("js", jensen_shannon), ("jeffreys", jeffreys_divergence)]
)
def test_divergence_is_the_mean_over_the_clip(target, divergence):
    made, teacher = clips(), Pixels()
    found = divergence_scores(made, teacher, target=target)
    for k, score in enumerate(found):
        heard, seen = teacher(
            torch.from_numpy(made.waveforms[k])[None], torch.from_numpy(made.frames[k])[None]
        )
        torch.testing.assert_close(score, divergence(heard, seen).mean())
    assert found.std() > 0


def test_divergence_refuses_other_targets():
    with pytest.raises(ValueError, match="js or jeffreys, got 'kl'"):
        divergence_scores(clips(), Pixels(), target="kl")


@pytest.mark.parametrize("lag", [-4, 0, 3])
def test_offset_is_found(lag):
    torch.manual_seed(0)
    whole = torch.randn(2, 60, 8)
    audio, visual = whole[:, 10 - lag : 50 - lag], whole[:, 10:50]
    found = sync_offset(audio, visual, reach=6)
    assert found.lag.tolist() == [lag, lag]
    torch.testing.assert_close(found.curve[:, 6 + lag], torch.ones(2))
    assert (found.confidence > 0.3).all()
    back = sync_offset(visual, audio, reach=6)
    torch.testing.assert_close(back.curve, found.curve.flip(1))


def test_offset_curve_by_a_loop():
    torch.manual_seed(1)
    a, v = torch.randn(2, 1, 7, 4)
    curve = sync_offset(a, v, reach=15).curve[0]
    assert len(curve) == 7  # at most half of the clip: 3 frames each way
    for lag in range(-3, 4):
        pairs = [(t + lag, t) for t in range(7) if 0 <= t + lag < 7]
        cosines = [F.cosine_similarity(a[0, i], v[0, j], dim=0) for i, j in pairs]
        torch.testing.assert_close(curve[lag + 3], (torch.stack(cosines).mean() + 1) / 2)


def test_offset_of_what_never_changes_is_unsure():
    x = torch.ones(1, 20, 4)
    assert sync_offset(x, x).confidence.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("audio", "visual", "reach"),
    [((1, 9, 4), (1, 8, 4), 3), ((9, 4), (9, 4), 3), ((1, 9, 4), (1, 9, 4), -1)],
)
def test_offset_refuses(audio, visual, reach):
    with pytest.raises(ValueError, match="reach >= 0"):
        sync_offset(torch.zeros(audio), torch.zeros(visual), reach=reach)


def test_sync_scores_prefer_clips_that_go_together(device):
    rng = np.random.default_rng(0)
    level = rng.uniform(-0.5, 0.5, (2, 40))
    frames = [
        np.repeat((255 * (row + 0.5)).astype(np.uint8), 64).reshape(40, 8, 8) for row in level
    ]
    sound = np.repeat(level, 640, axis=1).astype(np.float32)
    made = ArrayClips(frames, [sound[0], sound[0]], [0, 1])
    together, apart = sync_scores(made, Pixels().to(device), reach=5)
    assert together < apart - 0.1


def test_sync_scores_of_a_detector(tiny):
    found = sync_scores(clips(), tiny, reach=3)
    assert found.shape == (5,)
    assert ((found <= 0) & (found >= -1)).all()


def test_sync_scores_of_the_official_way(tiny):
    """Its own features, and no clip sees its neighbours in a batch."""
    made = clips(lengths=(9, 9, 9))
    parts = zip(made.frames, made.waveforms, made.labels, strict=True)
    alone = [ArrayClips([frames], [sound], [label]) for frames, sound, label in parts]
    tiny.config["legacy_concat"] = tiny.visualFrontend.legacy_concat = True
    found = sync_scores(made, tiny, legacy=True)
    by_one = torch.cat([sync_scores(one, tiny, legacy=True) for one in alone])
    torch.testing.assert_close(found, by_one)
    assert not torch.allclose(found, sync_scores(made, tiny))
