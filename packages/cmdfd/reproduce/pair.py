"""The teachers of the experiment: a small pair that learns the classes of sounds, and not too well.

They are weak because they see few clips for a short time, the voice's for `VOICE` of the epochs;
nothing is added to what they say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from cmdfd.data import AVBatch, AVDataset
from cmdfd.mouths import CLASSES
from cmdfd.sampling import FrameBudgetSampler
from cmdfd.small_teacher import SmallTeacher
from corpora import Part
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

DIM, WIDTH, LR, FRAMES_PER_BATCH = 32, 8, 5e-3, 800
VOICE = 0.375  # of the epochs


def train_teacher(part: Part, *, epochs: int, seed: int) -> SmallTeacher:
    """Return recognisers trained with frame labels, in evaluation mode.

    Args:
        part: real clips.
        epochs: passes over them.
        seed: of start and order.
    """
    torch.manual_seed(seed)
    teacher = SmallTeacher(len(CLASSES), dim=DIM, width=WIDTH)
    optimizer = Adam(teacher.parameters(), lr=LR)
    dataset = AVDataset(part.clips, augmented=True, seed=seed)
    sampler = FrameBudgetSampler(
        dataset.lengths, FRAMES_PER_BATCH, shuffle=True, seed=seed, rank=0, world_size=1
    )
    schedule = OneCycleLR(optimizer, LR, total_steps=epochs * len(sampler))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for items in sampler:
            batch = dataset[items]
            truth = _truth(part.classes, batch)
            loss = F.cross_entropy(teacher.visual_logits(batch.frames).mT, truth)
            if epoch < VOICE * epochs:
                heard = teacher.audio_logits(batch.waveform, truth.shape[1])
                loss = loss + F.cross_entropy(heard.mT, truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return teacher.eval()


@torch.no_grad()
def accuracies(teacher: SmallTeacher, part: Part) -> tuple[float, float]:
    """Return in what share of the frames of real clips the voice and the mouth are understood.

    Args:
        teacher: in evaluation mode.
        part: with real clips.
    """
    dataset = AVDataset(part.clips)
    right, frames = torch.zeros(2), 0
    for index in np.flatnonzero(np.array(part.clips.labels) == 0).tolist():
        batch = dataset[[(0, index)]]
        truth = _truth(part.classes, batch)
        right += torch.stack(
            [
                (said.argmax(2) == truth).sum()
                for said in _logits(teacher, batch.waveform, batch.frames)
            ]
        )
        frames += truth.numel()
    heard, seen = (right / frames).tolist()
    return heard, seen


def _logits(teacher: SmallTeacher, waveform: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    return teacher.audio_logits(waveform, frames.shape[1]), teacher.visual_logits(frames)


def _truth(classes: Sequence[np.ndarray], batch: AVBatch) -> Tensor:
    frames = batch.frames.shape[1]
    return torch.from_numpy(np.stack([classes[int(name)][:frames] for name in batch.names]))
