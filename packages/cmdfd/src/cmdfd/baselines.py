"""What a detector has to beat: the teachers alone, and the offset of the sound.

The other baselines are elsewhere: one stream alone in `cmdfd.one_stream`, what the lengths of a
file give away in `cmdfd.audit`; the plain classifier is `CMDFDModule` without a teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cmdfd.data import AVBatch, AVClips, AVDataset
from cmdfd.losses import Target, correlation, jeffreys_divergence, jensen_shannon
from cmdfd.model import CMDFDNet
from cmdfd.sampling import FrameBudgetSampler
from cmdfd.teachers import ContentTeacher


def scores_of(
    clips: AVClips,
    judge: Callable[[AVBatch], Tensor],
    *,
    frames_per_batch: int = 2000,
    max_frames: int = 1000,
    legacy: bool = False,
) -> Tensor:
    """Return what is said of each clip, in the order of the clips.

    Args:
        clips: N of them.
        judge: says something of each clip of a batch, whose clips are of one length: (B, ...). It
            runs without gradients.
        frames_per_batch: see `cmdfd.sampling.frame_budget_batches`.
        max_frames: of a clip, from its begin.
        legacy: see `AVDataset`.

    Returns:
        on the CPU, shape (N, ...).

    Raises:
        ValueError: a number out of range.
    """
    dataset = AVDataset(clips, max_frames=max_frames, legacy=legacy)
    order: list[int] = []
    said = []
    with torch.no_grad():
        for items in FrameBudgetSampler(
            dataset.lengths, frames_per_batch, shuffle=False, rank=0, world_size=1
        ):
            order += [index for _, index in items]
            said.append(judge(dataset[items]).cpu())
    return torch.cat(said)[torch.tensor(order).argsort()]


def divergence_scores(clips: AVClips, teacher: ContentTeacher, *, target: Target = "js") -> Tensor:
    """Return how far both recognisers disagree, as a mean over each clip: the teachers alone.

    Args:
        clips: N of them.
        teacher: is put into evaluation mode.
        target: ``js``, in bits, or ``jeffreys``; nothing is clamped.

    Returns:
        float32, >= 0 up to rounding, shape (N,); higher = more fake.

    Raises:
        ValueError: an unknown target.
    """
    if target not in ("js", "jeffreys"):
        raise ValueError(f"target must be js or jeffreys, got {target!r}")
    divergence = jensen_shannon if target == "js" else jeffreys_divergence
    return scores_of(clips, lambda batch: divergence(*_streams(teacher, batch)).mean(1))


class SyncOffset(NamedTuple):
    """Where voice and mouth go together best, clip by clip.

    Attributes:
        lag: frames by which the sound is late, < 0 if it is early, int64, shape (B,).
        confidence: how much better the best lag is than the median of all, in [0, 1], shape (B,).
        curve: mean correlation at each lag, from -R to R frames, in [0, 1], shape (B, 2 R + 1).
    """

    lag: Tensor
    confidence: Tensor
    curve: Tensor


def sync_offset(audio: Tensor, visual: Tensor, *, reach: int = 15) -> SyncOffset:
    """Return the best offset of the sound and how sure it is, as SyncNet finds them.

    Args:
        audio: a vector per frame, float, shape (B, T, D): embeddings or posteriors.
        visual: likewise, of the same meaning.
        reach: frames each way; R is this, but at most T // 2, so that half of the clip overlaps.

    Raises:
        ValueError: shapes do not match, or reach is negative.

    Example:
        >>> import torch
        >>> x = torch.eye(8)[None]
        >>> sync_offset(x.roll(2, dims=1), x, reach=3).lag
        tensor([2])
    """
    if audio.ndim != 3 or audio.shape != visual.shape or reach < 0:
        raise ValueError(
            f"audio and visual must be (B, T, D) and reach >= 0, got {tuple(audio.shape)}, "
            f"{tuple(visual.shape)} and {reach}"
        )
    frames = audio.shape[1]
    most = min(reach, frames // 2)
    lags = range(-most, most + 1)
    overlaps = [(slice(max(k, 0), frames + min(k, 0)), k) for k in lags]  # of the sound
    curve = torch.stack(
        [
            correlation(audio[:, at], visual[:, at.start - k : at.stop - k]).mean(1)
            for at, k in overlaps
        ],
        dim=1,
    )
    best, place = curve.max(1)
    return SyncOffset(place - most, best - curve.median(1).values, curve)


def sync_scores(
    clips: AVClips, model: CMDFDNet | ContentTeacher, *, reach: int = 15, legacy: bool = False
) -> Tensor:
    """Return minus the confidence of `sync_offset`: nothing goes together at any offset.

    Args:
        clips: N of them.
        model: a detector, whose embeddings a' and v' are compared, or a teacher, whose posteriors
            are; it is put into evaluation mode.
        reach: see `sync_offset`.
        legacy: see `AVDataset`, for a detector that was trained so.

    Returns:
        float32 in [-1, 0], shape (N,); higher = more fake.

    Raises:
        ValueError: reach is negative.
    """
    alone = isinstance(model, CMDFDNet) and model.config["legacy_concat"]  # clips would mix
    return scores_of(
        clips,
        lambda batch: -sync_offset(*_streams(model, batch), reach=reach).confidence,
        frames_per_batch=1 if alone else 2000,
        legacy=legacy,
    )


def _streams(model: CMDFDNet | ContentTeacher, batch: AVBatch) -> tuple[Tensor, Tensor]:
    """Return what a model makes of sound and picture, two of (B, T, D)."""
    model.eval()
    device = next(model.parameters()).device
    if isinstance(model, CMDFDNet):
        out = model(batch.mfcc.to(device), batch.frames.to(device))
        return out.audio, out.visual
    heard, seen = model(batch.waveform.to(device), batch.teacher_video.to(device))
    return heard, seen
