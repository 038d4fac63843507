"""A small Vision Transformer (Dosovitskiy et al. 2021): no class token, fixed positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_hv.shapes import check_images


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images into patches, row by row from the top left.

    Args:
        images: any dtype, shape (N, C, H, W), H and W multiples of `patch`.
        patch: side of a patch in pixels.

    Returns:
        Shape (N, H W / patch^2, C patch^2).
    """
    return F.pixel_unshuffle(images, patch).flatten(2).transpose(1, 2)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """Put the patches of a square image together again: the inverse of `patchify`.

    Args:
        patches: any dtype, shape (N, T, C patch^2), T a square number.
        patch: side of a patch in pixels.

    Returns:
        Shape (N, C, S, S) with S = patch sqrt(T).
    """
    side = round(patches.shape[1] ** 0.5)
    return F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (side, side)), patch)


def sincos_positions(side: int, width: int) -> Tensor:
    """Return sines and cosines of the row, then of the column, of a square grid.

    Args:
        side: rows and columns of the grid.
        width: numbers per place, a multiple of 4.

    Returns:
        float32 in [-1, 1], shape (side^2, width).
    """
    frequency = 10_000 ** (-torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], 1)
    row, column = axis.repeat_interleave(side, 0), axis.repeat(side, 1)
    return torch.cat([row, column], 1)


class Transformer(nn.Module):
    """Pre-norm self-attention blocks and a last layer norm.

    Args:
        width: of a token, a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.heads = heads
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                4 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.blocks.named_parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the tokens after all blocks.

        Args:
            tokens: float, shape (N, T, width).
            visible: bool, shape (N, T, T), whether the token of the row sees that of the column;
                None: every token sees all.

        Returns:
            Shape (N, T, width).
        """
        hidden = None if visible is None else (~visible).repeat_interleave(self.heads, 0)
        for block in self.blocks:
            tokens = block(tokens, src_mask=hidden)
        return self.norm(tokens)


class VisionTransformer(nn.Module):
    """Square images to the mean of their tokens.

    Args:
        in_channels: C of the images.
        image_size: side of the images in pixels, a multiple of `patch`.
        patch: side of a patch in pixels.
        width: of a token and of the representation, a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: of the attention.

    Attributes:
        dim: length of the representation, `width`.
        tokens: T, number of patches.

    Raises:
        ValueError: a size is not the multiple that it must be.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        in_channels: int = 1,
        image_size: int = 64,
        patch: int = 8,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"image_size must be a multiple of {patch} pixels, got {image_size}")
        if width % 4:
            raise ValueError(f"width must be a multiple of 4, got {width}")
        self.in_channels, self.image_size = in_channels, image_size
        self.patch, self.dim = patch, width
        side = image_size // patch
        self.tokens = side**2
        self.embedding = nn.Linear(in_channels * patch**2, width)
        self.register_buffer("positions", sincos_positions(side, width), persistent=False)
        self.transformer = Transformer(width, depth, heads)
        nn.init.xavier_uniform_(self.embedding.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return the representation.

        Args:
            images: float in [0, 1], shape (N, C, image_size, image_size).

        Returns:
            Shape (N, dim).

        Raises:
            ValueError: images of another shape.
        """
        return self.transformer(self.embed(images)).mean(1)

    def embed(self, images: Tensor) -> Tensor:
        """Return the patches as tokens with their positions, shape (N, T, width)."""
        check_images(images, (self.in_channels, self.image_size, self.image_size))
        return self.embedding(patchify(images, self.patch)) + self.positions


def vit_b32(in_channels: int = 1, image_size: int = 224) -> VisionTransformer:
    """Return ViT-B/32, the paper's: 49 patches of 224 x 224, width 768, depth 12, 12 heads.

    Args:
        in_channels: 1 or 3.
        image_size: side in pixels, a multiple of 32.
    """
    return VisionTransformer(
        in_channels=in_channels, image_size=image_size, patch=32, width=768, depth=12, heads=12
    )


def vit_tiny(in_channels: int = 1, image_size: int = 64) -> VisionTransformer:
    """Return a transformer for two cores: 64 patches of 64 x 64, width 64, depth 2, 4 heads.

    Args:
        in_channels: 1 or 3.
        image_size: side in pixels, a multiple of 8.
    """
    return VisionTransformer(in_channels=in_channels, image_size=image_size)
