"""Content teachers that are trained: their batches, losses and the LightningModule.

Three ways: classes of frames by cross-entropy, letters without times by CTC, and a lip reader that
learns what a recogniser of speech hears (Kullback-Leibler divergence), without any labels. Only
real clips are to be given: in forged ones voice and mouth may say different things.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from papercommons.data.sampling import mix_seeds
from papercommons.optimization import stop_if_diverged
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

from cmdfd.augmentation import augment
from cmdfd.data import AVClips
from cmdfd.sampling import FrameBudgetSampler
from cmdfd.teachers import ContentTeacher

Objective = Literal["frames", "letters", "distill"]
NO_CLASS = -100  # of padding


class TeachBatch(NamedTuple):
    """What is taught from.

    Attributes:
        frames: grey face crops, uint8, shape (B, T, H, W).
        clean: the same before any augmentation.
        waveform: at 16 kHz, float32, shape (B, 640 T).
        targets: int64; classes of frames (B, T), letters (B, L) padded with -100, or (B, 0).
    """

    frames: Tensor
    clean: Tensor
    waveform: Tensor
    targets: Tensor


class TeachDataset(Dataset[TeachBatch]):
    """Batches of pieces of clips.

    Args:
        clips: real ones.
        targets: of each clip: classes of all its frames, or its letters; None for distillation.
        way: see the module; ``letters`` takes clips whole.
        max_frames: of a piece; None is the whole clip.
        augmented: change frames by `cmdfd.augmentation.augment`.
        seed: of chance.
    """

    def __init__(
        self,
        clips: AVClips,
        targets: Sequence[np.ndarray] | None,
        way: Objective,
        *,
        max_frames: int | None = None,
        augmented: bool = False,
        seed: int = 0,
    ) -> None:
        self.clips, self.targets, self.way = clips, targets, way
        self.augmented, self.seed = augmented, seed
        most = None if way == "letters" else max_frames
        self.lengths = [n if most is None else min(n, most) for n in clips.lengths]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, items: Sequence[tuple[int, int]]) -> TeachBatch:
        """Return the batch of (epoch, index) pairs, cut to the shortest."""
        count = min(self.lengths[index] for _, index in items)
        clean, changed, waves, targets = [], [], [], []
        for epoch, index in items:
            rng = np.random.default_rng(mix_seeds(self.seed, epoch, index))
            spare = self.clips.lengths[index] - count
            start = int(rng.integers(spare + 1)) if self.augmented else 0
            sample = self.clips.read(index, start, count)
            frames = torch.from_numpy(np.ascontiguousarray(sample.frames))
            clean.append(frames)
            changed.append(augment(frames, rng) if self.augmented else frames)
            waves.append(torch.from_numpy(sample.waveform).float())
            whole = np.empty(0) if self.targets is None else self.targets[index]
            piece = whole[start : start + count] if self.way == "frames" else whole
            targets.append(torch.from_numpy(piece.astype(np.int64)))
        padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=NO_CLASS)
        return TeachBatch(torch.stack(changed), torch.stack(clean), torch.stack(waves), padded)


class TeachData(LightningDataModule):
    """Real clips to train a teacher on, and others to judge it.

    Args:
        train: its clips and targets, see `TeachDataset`.
        val: likewise, or None.
        way: see the module.
        frames_per_batch: see `cmdfd.sampling.frame_budget_batches`.
        max_frames: of a training piece.
        augmented: see `TeachDataset`, for training.
        seed: of the order and all chance.
        num_workers: processes that read.
    """

    def __init__(
        self,
        train: tuple[AVClips, Sequence[np.ndarray] | None],
        val: tuple[AVClips, Sequence[np.ndarray] | None] | None,
        way: Objective,
        *,
        frames_per_batch: int = 2000,
        max_frames: int = 250,
        augmented: bool = True,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.way, self.seed, self.num_workers = way, seed, num_workers
        self.frames_per_batch = frames_per_batch
        self.train_set = TeachDataset(
            *train, way, max_frames=max_frames, augmented=augmented, seed=seed
        )
        self.val_set = None if val is None else TeachDataset(*val, way)

    def loader(self, dataset: TeachDataset, *, training: bool) -> DataLoader[TeachBatch]:
        """Return batches; whole clips of equal length unless pieces may be cut."""
        mixed = training and self.way != "letters"
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=FrameBudgetSampler(
                dataset.lengths, self.frames_per_batch, shuffle=mixed, seed=self.seed
            ),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> DataLoader[TeachBatch]:
        """Return the training batches."""
        return self.loader(self.train_set, training=True)

    def val_dataloader(self) -> DataLoader[TeachBatch] | list[DataLoader[TeachBatch]]:
        """Return every clip once; nothing without a val split."""
        return [] if self.val_set is None else self.loader(self.val_set, training=False)


class ContentModule(LightningModule):
    """Trains a teacher; Adam, 5 % less each epoch.

    Logs train/loss and val/loss, and of val the share of frames that are right, val/audio and
    val/video (against the recogniser's best class when distilling, which has no val/audio). Letters
    have no frames to be right; they are judged after the training.

    Args:
        teacher: to train; of an `HFTeacher` only the lip reader learns.
        way: see the module.
        lr: learning rate, > 0.
        lr_decay: factor per epoch, in (0, 1].

    Raises:
        ValueError: a number out of range, or another way.
    """

    def __init__(
        self, teacher: ContentTeacher, way: Objective, *, lr: float = 1e-3, lr_decay: float = 0.95
    ) -> None:
        super().__init__()
        if way not in get_args(Objective) or lr <= 0 or not 0 < lr_decay <= 1:
            raise ValueError(
                f"way must be {', '.join(get_args(Objective))}, lr > 0 and lr_decay in (0, 1], got "
                f"{way!r}, {lr}, {lr_decay}"
            )
        self.teacher, self.way, self.lr, self.lr_decay = teacher, way, lr, lr_decay
        self.right = torch.nn.ModuleDict(
            {name: MeanMetric(nan_strategy="disable") for name in ("audio", "video", "loss")}
        )

    def losses(self, batch: TeachBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the logits of each stream, (B, T, K)."""
        frames = batch.frames.shape[1]
        seen = self.teacher.visual_logits(batch.frames)
        heard = self.teacher.audio_logits(batch.waveform, frames)
        logits = {"audio": heard, "video": seen}
        if self.way == "distill":
            return F.kl_div(
                seen.float().log_softmax(-1).flatten(0, 1),
                heard.float().log_softmax(-1).flatten(0, 1),
                reduction="batchmean",
                log_target=True,
            ), logits
        if self.way == "frames":
            parts = [
                F.cross_entropy(x.float().flatten(0, 1), batch.targets.flatten())
                for x in (heard, seen)
            ]
        else:
            parts = [letter_loss(x, batch.targets) for x in (heard, seen)]
        return parts[0] + parts[1], logits

    def training_step(self, batch: TeachBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        loss, _ = self.losses(batch)
        self.log(
            "train/loss",
            loss.detach(),
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch.frames),
        )
        return loss

    def on_train_epoch_end(self) -> None:
        """End the run if its loss is not finite."""
        stop_if_diverged(self)

    def on_validation_epoch_start(self) -> None:
        """Forget what was seen."""
        metrics: Any = self.right.values()
        for metric in metrics:
            metric.reset()

    def validation_step(self, batch: TeachBatch, batch_idx: int) -> None:
        """Count the frames that are right."""
        loss, logits = self.losses(batch)
        metrics: Any = self.right
        metrics["loss"].update(loss, len(batch.frames))
        if self.way == "letters":
            return
        truth = batch.targets if self.way == "frames" else logits["audio"].argmax(-1)
        for name, values in logits.items():
            metrics[name].update((values.argmax(-1) == truth).float().mean(), truth.numel())

    def on_validation_epoch_end(self) -> None:
        """Log the numbers of all clips seen."""
        metrics: Any = self.right
        names = {"frames": ("audio", "video"), "letters": (), "distill": ("video",)}[self.way]
        self.log_dict({f"val/{name}": metrics[name].compute() for name in ("loss", *names)})

    def configure_optimizers(self) -> Any:
        """Return Adam for what is to learn, and its rate per epoch."""
        parameters = [p for p in self.teacher.parameters() if p.requires_grad]
        optimizer = Adam(parameters, lr=self.lr)
        return {"optimizer": optimizer, "lr_scheduler": ExponentialLR(optimizer, self.lr_decay)}


def letter_loss(logits: Tensor, letters: Tensor) -> Tensor:
    """Return the CTC loss by letter, the mean over the clips; class 0 is the blank.

    Args:
        logits: (B, T, K).
        letters: int64, (B, L), padded with -100.
    """
    lengths = (letters != NO_CLASS).sum(1)
    steps = torch.full_like(lengths, logits.shape[1])
    scores = logits.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(scores, letters.clamp(min=0), steps, lengths, zero_infinity=True)
