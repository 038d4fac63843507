"""Masked autoencoder, MAE (He et al. 2022): see some of the patches, paint the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_hv.objectives.precision import in_float32
from ssl_hv.vit import Transformer, VisionTransformer, patchify, sincos_positions, unpatchify


@in_float32
def masked_patch_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared error over the pixels of the masked patches.

    Args:
        prediction: float, shape (N, T, P).
        target: true pixels, float, shape (N, T, P).
        mask: bool, shape (N, T), True for at least one patch.

    Returns:
        Scalar >= 0, float32 at least.

    Raises:
        ValueError: the shapes do not match.
    """
    if prediction.shape != target.shape or mask.shape != target.shape[:2]:
        raise ValueError(
            "prediction and target must be (N, T, P) and mask (N, T), got "
            f"{tuple(prediction.shape)}, {tuple(target.shape)} and {tuple(mask.shape)}"
        )
    error = (prediction - target).square().mean(2)
    return (error * mask).sum() / mask.sum()


class MAE(nn.Module):
    """A transformer that sees the unmasked patches, and a light one that paints the rest.

    Args:
        encoder: what is kept.
        mask_ratio: share of the patches that are masked, in (0, 1); ssl-hv: 0.2, MAE: 0.75.
        decoder_width: of the decoder's tokens, a multiple of 4 and of `decoder_heads`.
        decoder_depth: blocks of the decoder.
        decoder_heads: of the decoder's attention.

    Raises:
        ValueError: a ratio that masks no patch or all of them.
    """

    views = 1
    positions: Tensor

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        mask_ratio: float = 0.2,
        decoder_width: int = 512,
        decoder_depth: int = 1,
        decoder_heads: int = 16,
    ) -> None:
        super().__init__()
        self.masked = round(encoder.tokens * mask_ratio)
        if not 0 < self.masked < encoder.tokens:
            raise ValueError(
                f"mask_ratio must leave and mask at least one of {encoder.tokens} patches, "
                f"got {mask_ratio}"
            )
        self.encoder = encoder
        self.bridge = nn.Linear(encoder.dim, decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(decoder_width))
        positions = sincos_positions(encoder.image_size // encoder.patch, decoder_width)
        self.register_buffer("positions", positions, persistent=False)
        self.decoder = Transformer(decoder_width, decoder_depth, decoder_heads)
        self.head = nn.Linear(decoder_width, encoder.in_channels * encoder.patch**2)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the loss under a random mask.

        Args:
            views: one batch of images, float in [0, 1], shape (N, C, S, S).

        Returns:
            "loss".
        """
        (images,) = views
        prediction, mask = self.paint(images, self.random_order(images))
        return {"loss": masked_patch_loss(prediction, patchify(images, self.encoder.patch), mask)}

    def random_order(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a random order of each image's patches, int64, shape (N, T)."""
        size = (len(images), self.encoder.tokens)
        return torch.rand(size, device=images.device, generator=generator).argsort(1)

    def paint(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all patches from those that are not masked.

        Args:
            images: float in [0, 1], shape (N, C, S, S).
            order: int64, shape (N, T); its first `masked` patches are masked.

        Returns:
            Predicted pixels, shape (N, T, C patch^2), and the mask, bool, shape (N, T).
        """
        kept = order[:, self.masked :, None]
        tokens = self.encoder.embed(images)
        seen = self.encoder.transformer(tokens.gather(1, kept.expand(-1, -1, tokens.shape[2])))
        seen = self.bridge(seen)
        canvas = self.mask_token.to(seen.dtype).repeat(*order.shape, 1)
        canvas = canvas.scatter(1, kept.expand_as(seen), seen)
        mask = torch.ones_like(order, dtype=torch.bool).scatter(1, kept[..., 0], False)
        return self.head(self.decoder(canvas + self.positions)), mask

    @torch.no_grad()
    def reconstruct(self, images: Tensor, *, seed: int = 0) -> Tensor:
        """Return the images with random patches painted by the network, in [0, 1].

        Args:
            images: float in [0, 1], shape (N, C, S, S).
            seed: of the mask.
        """
        patch, generator = self.encoder.patch, torch.Generator(images.device).manual_seed(seed)
        prediction, mask = self.paint(images, self.random_order(images, generator))
        patches = torch.where(mask[..., None], prediction.to(images.dtype), patchify(images, patch))
        return unpatchify(patches, patch).clamp(0, 1)

    def update(self, progress: float) -> None:
        """Nothing changes between the steps."""
