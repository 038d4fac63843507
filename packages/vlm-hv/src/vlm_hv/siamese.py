"""The supervised network of the paper's table: two images, one encoder, the difference of features.

The encoder is the paper's ResNet-18 or any other, such as one of ssl-hv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from papercommons.cli import ComputeOptions, RunOptions
from papercommons.data.pairs import Pairs
from papercommons.training import fit
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

BATCH = 64


class SiameseResNet(LightningModule):
    """Trains an encoder on pairs, with binary cross-entropy; logs train/loss.

    Batches are places of the left and right images, and labels, int64, shape (B,) each.

    Args:
        images: uint8, dark on white, shape (N, H, W).
        lr: peak learning rate.
        network: takes images in [0, 1] with ink = 1, float, shape (B, 3, H, W), gives features,
            float, shape (B, dim), and says its ``dim``, as the encoders of ssl-hv do. It is trained
            on from its weights, where they are not frozen. None is the paper's ResNet-18 from
            scratch, dim = 512.

    Raises:
        ValueError: the network does not say its dim.
    """

    images: Tensor

    def __init__(
        self, images: np.ndarray, *, lr: float = 1e-3, network: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("images", torch.from_numpy(images), persistent=False)
        dim: Any = 512
        if network is None:
            network = resnet18(weights=None)
            network.fc = nn.Identity()
        else:
            dim = getattr(network, "dim", None)
            if not isinstance(dim, int):
                raise ValueError(f"network must have dim, the size of its features, got {dim!r}")
        self.network = network
        self.head = nn.Linear(dim, 1)
        self.lr = lr

    def features(self, places: Tensor) -> Tensor:
        """Return the features of some images, shape (B, dim)."""
        ink = 1 - self.images[places].float() / 255
        found: Tensor = self.network(ink[:, None].expand(-1, 3, -1, -1))
        return found

    def score(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the logits of features of pairs, shape (B,)."""
        found: Tensor = self.head((left - right).abs()).squeeze(1)
        return found

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        left, right, same = batch
        both = self.features(torch.cat([left, right]))
        loss = F.binary_cross_entropy_with_logits(self.score(*both.chunk(2)).float(), same.float())
        self.log("train/loss", loss.detach(), on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> Any:
        """Return AdamW under a one-cycle schedule, stepped after each batch."""
        optimizer = AdamW(self.parameters(), lr=self.lr, weight_decay=1e-2)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, self.lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Places(LightningDataModule):
    """Gives the places of pairs, shuffled anew in each epoch."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        parts = (torch.from_numpy(part) for part in (pairs.left, pairs.right, pairs.same))
        self.dataset = TensorDataset(*parts)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of places and labels."""
        return DataLoader(self.dataset, batch_size=BATCH, shuffle=True)


def train_resnet(
    images: np.ndarray,
    pairs: Pairs,
    *,
    epochs: int,
    run: ComputeOptions,
    lr: float = 1e-3,
    network: nn.Module | None = None,
) -> SiameseResNet:
    """Return a network trained on pairs, in evaluation mode.

    Args:
        images: uint8, shape (N, H, W).
        pairs: of places in `images`.
        epochs: passes over the pairs, >= 1.
        run: where and how to compute.
        lr: peak learning rate.
        network: another encoder than the ResNet-18, see `SiameseResNet`.

    Raises:
        ValueError: the network does not say its dim.
    """
    module = SiameseResNet(images, lr=lr, network=network)
    fit(module, _Places(pairs), epochs=epochs, run=RunOptions(**vars(run), devices="1"))
    return module.eval()


@torch.inference_mode()
def score_pairs(module: SiameseResNet, pairs: Pairs, *, batch_size: int = 512) -> np.ndarray:
    """Return the logits of pairs, float64, shape (P,); each image is seen once.

    Args:
        module: trained.
        pairs: of places in its images.
        batch_size: images at a time.
    """
    places, where = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    chunks = torch.from_numpy(places).to(module.device).split(batch_size)
    features = torch.cat([module.features(chunk) for chunk in chunks])
    left, right = torch.from_numpy(where).to(module.device).chunk(2)
    return module.score(features[left], features[right]).double().cpu().numpy()
