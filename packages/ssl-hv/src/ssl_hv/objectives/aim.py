"""Autoregressive image models, AIM (El-Nouby et al. 2024): guess each patch from those before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_hv.objectives.mae import masked_patch_loss
from ssl_hv.objectives.precision import in_float32
from ssl_hv.vit import VisionTransformer, patchify, unpatchify


def normalize_patches(patches: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Return every patch with mean 0 and (unbiased) variance 1; a plain one becomes 0.

    Args:
        patches: float, shape (..., P) with P > 1.
        eps: added to the variance.
    """
    variance, mean = torch.var_mean(patches, -1, keepdim=True)
    return (patches - mean) / (variance + eps).sqrt()


@in_float32
def autoregressive_patch_loss(prediction: Tensor, patches: Tensor, prefix: Tensor) -> Tensor:
    """Return the mean squared error of the patches behind the prefix, normalised one by one.

    Args:
        prediction: of all patches but the first, float, shape (N, T - 1, P).
        patches: true pixels of all patches, float, shape (N, T, P).
        prefix: number of patches given away, int64, shape (N,), values in [1, T).

    Returns:
        Scalar >= 0, float32 at least.

    Raises:
        ValueError: the shapes do not match.
    """
    behind = torch.arange(1, patches.shape[1], device=prefix.device) >= prefix[:, None]
    return masked_patch_loss(prediction, normalize_patches(patches)[:, 1:], behind)


def prefix_visibility(prefix: Tensor, tokens: int) -> Tensor:
    """Return which token sees which: itself, all before it, and the whole prefix.

    Args:
        prefix: length of each image's prefix, int64, shape (N,).
        tokens: T.

    Returns:
        bool, shape (N, T, T), rows see columns.
    """
    place = torch.arange(tokens, device=prefix.device)
    return (place <= place[:, None]) | (place < prefix[:, None, None])


class ResidualMLP(nn.Module):
    """A pre-norm residual block of the pixel head, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the same shape, (..., width)."""
        return tokens + self.layers(tokens)


class AIM(nn.Module):
    """A transformer that guesses the next patch, behind a prefix that sees itself both ways.

    Token k predicts patch k + 1, as in AIM. (The official script compares token k, which sees
    patch k, with patch k.) The encoder is used without a mask afterwards.

    Args:
        encoder: what is kept; at least two patches.
        head_depth: residual blocks of the pixel head.
    """

    views = 1

    def __init__(self, encoder: VisionTransformer, *, head_depth: int = 1) -> None:
        super().__init__()
        if encoder.tokens < 2:
            raise ValueError("AIM needs images of at least 2 patches, got 1")
        self.encoder = encoder
        self.head = nn.Sequential(
            *(ResidualMLP(encoder.dim) for _ in range(head_depth)),
            nn.LayerNorm(encoder.dim),
            nn.Linear(encoder.dim, encoder.in_channels * encoder.patch**2),
        )

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the loss behind random prefixes of 1 to T - 1 patches.

        Args:
            views: one batch of images, float in [0, 1], shape (N, C, S, S).

        Returns:
            "loss".
        """
        (images,) = views
        prefix = torch.randint(1, self.encoder.tokens, (len(images),), device=images.device)
        patches = patchify(images, self.encoder.patch)
        return {"loss": autoregressive_patch_loss(self.predict(images, prefix), patches, prefix)}

    def predict(self, images: Tensor, prefix: Tensor) -> Tensor:
        """Guess every patch but the first from the prefix and the patches before it.

        Args:
            images: float in [0, 1], shape (N, C, S, S).
            prefix: int64, shape (N,), values in [1, T); guesses inside it mean nothing.

        Returns:
            Normalised pixels, shape (N, T - 1, C patch^2).
        """
        visible = prefix_visibility(prefix, self.encoder.tokens)
        return self.head(self.encoder.transformer(self.encoder.embed(images), visible)[:, :-1])

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the images, the lower half guessed patch by patch from the true ones before.

        The guesses are shown with the true mean and variance of their patch, in [0, 1].

        Args:
            images: float in [0, 1], shape (N, C, S, S).
        """
        half = (self.encoder.tokens + 1) // 2
        patches = patchify(images, self.encoder.patch)
        prefix = torch.full((len(images),), half, device=images.device)
        std, mean = torch.std_mean(patches[:, half:], -1, keepdim=True)
        guesses = mean + std * self.predict(images, prefix)[:, half - 1 :]
        painted = torch.cat([patches[:, :half], guesses.to(patches.dtype)], 1)
        return unpatchify(painted, self.encoder.patch).clamp(0, 1)

    def update(self, progress: float) -> None:
        """Nothing changes between the steps."""
