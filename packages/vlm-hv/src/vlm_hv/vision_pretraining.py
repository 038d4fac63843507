"""A start for a vision tower that has never seen anything: words of one writer look alike.

A vision-language model does not learn to see from one-word answers: PaliGemma's tower comes out of
contrastive training (SigLIP), and the random one of `vlm_hv.tiny` needs the like. Here that is the
supervised contrastive loss over writers (Khosla et al. 2020, arXiv 2004.11362), ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from papercommons.cli import RunOptions
from papercommons.data.pairs import Pairs, make_pairs
from papercommons.data.sampling import batch_loader
from papercommons.training import fit
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset

from vlm_hv.data import PairData
from vlm_hv.prompting import as_rgb
from vlm_hv.verifier import VLMVerifier


def writer_contrast(features: Tensor, writers: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Return the supervised contrastive loss (its eq. 2, "out"), writers being the classes.

    Args:
        features: one row per image, any float dtype, shape (N, D); their length does not matter.
        writers: number of each image's writer, int64, shape (N,).
        temperature: > 0; the lower, the more the hardest others count.

    Returns:
        float32 scalar >= 0, the mean over images that have another one of their writer.

    Raises:
        ValueError: the shapes do not match, no writer has two images, or temperature <= 0.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> writer_contrast(features, torch.tensor([0, 0, 1, 1]), temperature=1.0)
        tensor(0.5514)
    """
    if features.ndim != 2 or writers.shape != features.shape[:1]:
        raise ValueError(
            f"features must be (N, D) and writers (N,), got {tuple(features.shape)} and "
            f"{tuple(writers.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    unit = F.normalize(features.float(), dim=1)
    self_pairs = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    alike = (writers[:, None] == writers) & ~self_pairs
    if not alike.any():
        raise ValueError("no writer has two images here; draw pairs of one writer")
    similar = (unit @ unit.T / temperature).masked_fill(self_pairs, -torch.inf)
    log_p = similar.log_softmax(dim=1).masked_fill(~alike, 0.0)
    counts = alike.sum(dim=1)
    return -(log_p.sum(dim=1) / counts.clamp(min=1))[counts > 0].mean()


def image_features(model: Any, pixels: Tensor) -> Tensor:
    """Return one row per picture: the mean of the tokens that the language model would get.

    Args:
        model: whose pictures are one block each, such as PaliGemma.
        pixels: of its image processor, shape (N, 3, S, S).

    Returns:
        shape (N, D).
    """
    tokens: Tensor = model.get_image_features(pixels, return_dict=True).pooler_output
    return tokens.mean(dim=1)


class WriterBatch(NamedTuple):
    """Images by writer.

    Attributes:
        pixels: of the image processor, float32, shape (N, 3, S, S).
        writers: their numbers, int64, shape (N,).
    """

    pixels: Tensor
    writers: Tensor


class _OneWriter(Dataset[WriterBatch]):
    """Batches of both images of same-writer pairs."""

    def __init__(
        self, images: np.ndarray, pairs: Pairs, writers: Sequence[str], processor: Any
    ) -> None:
        self.images, self.processor = images, processor
        self.pairs = pairs.take(np.flatnonzero(pairs.same))
        self.writers = np.unique(np.asarray(writers), return_inverse=True)[1]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> WriterBatch:
        some = self.pairs.take([number for _, number in items])
        places = np.concatenate([some.left, some.right])
        pictures = [as_rgb(self.images[place]) for place in places]
        pixels = self.processor.image_processor(images=pictures, return_tensors="pt")
        return WriterBatch(pixels["pixel_values"], torch.from_numpy(self.writers[places]))


class WriterData(LightningDataModule):
    """Images of training writers, two by two of one writer.

    Args:
        images: uint8, dark on white, shape (N, H, W).
        pairs: of places in `images`; only those of one writer are taken.
        writers: of each image.
        processor: of the model.
        batch_size: pairs per step; each is contrasted with all others.
        seed: of the order.
    """

    def __init__(
        self,
        images: np.ndarray,
        pairs: Pairs,
        writers: Sequence[str],
        processor: Any,
        *,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dataset = _OneWriter(images, pairs, writers, processor)
        self.batch_size, self.seed = batch_size, seed

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the shuffled pairs; a last, smaller batch is left out."""
        size = min(self.batch_size, len(self.dataset))
        return batch_loader(self.dataset, batch_size=size, seed=self.seed, shuffle=True, whole=True)


class TowerModule(LightningModule):
    """Trains vision tower and projector of a verifier by `writer_contrast`; logs train/loss.

    Batches are `WriterBatch`.

    Args:
        verifier: whose tower is trained; its language model stays as it is.
        lr: peak learning rate, of AdamW under a one-cycle schedule.
        temperature: see `writer_contrast`.
    """

    def __init__(
        self, verifier: VLMVerifier, *, lr: float = 1.5e-3, temperature: float = 0.1
    ) -> None:
        super().__init__()
        self.verifier, self.lr, self.temperature = verifier.train(), lr, temperature

    def training_step(self, batch: WriterBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        features = image_features(self.verifier.model, batch.pixels)
        loss = writer_contrast(features, batch.writers, temperature=self.temperature)
        self.log("train/loss", loss.detach(), on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> Any:
        """Return AdamW over tower and projector, and its schedule, stepped after each batch."""
        model = self.verifier.model.model
        parts = (model.vision_tower, model.multi_modal_projector)
        weights = [weight for part in parts for weight in part.parameters()]
        optimizer = AdamW(weights, lr=self.lr, weight_decay=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, self.lr, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def teach_tower(
    verifier: VLMVerifier, data: PairData, run: RunOptions, *, steps: int = 400
) -> VLMVerifier:
    """Train vision tower and projector on the training writers, and return the verifier.

    Args:
        verifier: changed in place; a PaliGemma.
        data: all words of its training writers are used, however few pairs it draws.
        run: where and how to compute.
        steps: of 128 pairs of one writer each, >= 1; rounded up to whole passes.

    Raises:
        ValueError: steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    pairs = make_pairs(data.words, data.splits["train"], seed=data.seed)
    images = WriterData(
        data.images, pairs, data.words.writers, verifier.prompt.processor, seed=data.seed
    )
    epochs = -(-steps // len(images.train_dataloader()))
    fit(TowerModule(verifier), images, epochs=epochs, run=run)
    return verifier
