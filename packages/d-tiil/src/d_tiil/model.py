"""The parts of a Stable Diffusion pipeline as the method needs them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from papercommons.errors import DataError
from PIL import Image
from torch import Tensor

from d_tiil.encoding import encode_texts
from d_tiil.noise import LEAST_ALPHA_BAR, Denoiser, to_epsilon
from d_tiil.tokens import check_length


class DiffusionModel:
    """A pipeline's networks, called with images, texts and embeddings.

    Args:
        pipe: a diffusers pipeline with the parts of Stable Diffusion 1, 2 or XL.
        device: where it runs; that of the pipeline if not given.

    Attributes:
        rows: how many images the network was given so far.
        vae_factor: pixels for each latent.
        alpha_bars: products of alphas, float32, (T,), > 0.
    """

    def __init__(self, pipe: Any, device: torch.device | None = None) -> None:
        self.pipe = pipe
        self.rows = 0
        self.vae_factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        self.images = VaeImageProcessor(vae_scale_factor=self.vae_factor)
        self.device = torch.device(pipe._execution_device if device is None else device)
        if self.device.type == "cpu" and pipe.unet.dtype == torch.float16:
            raise ValueError("float16 needs a GPU; load the model in float32")
        table = pipe.scheduler.alphas_cumprod.double().clamp_min(LEAST_ALPHA_BAR)
        self.alpha_bars = table.float().to(self.device)
        self.pooled = _pooled_width(pipe)

    def fit(self, image: Image.Image, *, resize: bool) -> Image.Image:
        """Return the image as the model takes it.

        Args:
            image: RGB.
            resize: scale it to about the area that the model was made for, with sides that all its
                levels divide, unless it is so already; else it is taken as it is.

        Raises:
            DataError: it is so long and narrow that it cannot be scaled; or its sides are not
                multiples of the autoencoder's factor, and `resize` is false.
        """
        factor = self.vae_factor
        if not resize:
            if image.width % factor or image.height % factor:
                raise DataError(
                    f"the image has {image.width} x {image.height} pixels and the model needs "
                    f"multiples of {factor}; resize it, or let it be resized"
                )
            return image
        grid = factor * 2 ** (len(self.pipe.unet.config.block_out_channels) - 1)
        wanted = factor * _largest_side(self.pipe.unet.config.sample_size)
        scale = wanted / math.sqrt(image.width * image.height)
        sides = [round(side * scale / grid) * grid for side in image.size]
        if not all(sides):
            raise DataError(
                f"the image has {image.width} x {image.height} pixels, which is too long and "
                "narrow for the model; crop it"
            )
        if list(image.size) == sides:
            return image
        return image.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)

    @torch.no_grad()
    def encode(self, image: Image.Image) -> Tensor:
        """Return the latents of an image, the autoencoder's mode, float32, (1, C, h, w)."""
        return self.encode_pixels(self.images.preprocess(image))

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Return the latents of pixels in [-1, 1], (1, 3, H, W)."""
        vae = self._vae()
        latents = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode().float()
        return (latents - _shift(vae)) * vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Image.Image:
        """Return the image of latents, (1, C, h, w).

        Raises:
            DataError: a latent is not finite.
        """
        if not bool(latents.isfinite().all()):
            raise DataError(
                "the model gave latents that are not finite; try float32, or lower guidance"
            )
        vae = self._vae()
        scaled = (latents / vae.config.scaling_factor + _shift(vae)).to(vae.dtype)
        pixels = vae.decode(scaled, return_dict=False)[0].float()
        return self.images.postprocess(pixels, output_type="pil")[0]

    def _vae(self) -> Any:
        vae = self.pipe.vae
        if vae.dtype == torch.float16 and vae.config.get("force_upcast", False):
            vae.to(dtype=torch.float32)  # it overflows in half precision
        return vae

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings of texts, float32, (K, L, D).

        Of XL the pooled vector is the last row, filled up with zeros, so that it is aligned too;
        the empty text is all zeros.

        Raises:
            DataError: a text other than "" is longer than an encoder takes.
        """
        pipe = self.pipe
        encoders = [(pipe.tokenizer, pipe.text_encoder)]
        if getattr(pipe, "text_encoder_2", None) is not None:
            encoders.append((pipe.tokenizer_2, pipe.text_encoder_2))
        for text in texts:
            if text:
                check_length(text, pipe.tokenizer)
        states, pooled = encode_texts(texts, encoders, device=self.device)
        states = states.float()
        if pooled is None:
            return states
        row = states.new_zeros(len(states), 1, states.shape[-1])
        row[:, 0, : pooled.shape[-1]] = pooled.float()
        packed = torch.cat([states, row], 1)
        packed[[k for k, text in enumerate(texts) if not text]] = 0  # as XL was trained
        return packed

    def denoiser(self, unet: Any = None, extra: Tensor | None = None) -> Denoiser:
        """Return what predicts noise.

        Args:
            unet: a network in place of the pipeline's.
            extra: channels that the network takes beside the latents, (1, E, h, w).
        """
        network = self.pipe.unet if unet is None else unet
        kind = self.pipe.scheduler.config.get("prediction_type", "epsilon")

        def denoise(latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
            self.rows += len(latents)
            inputs = latents
            if extra is not None:
                inputs = torch.cat([latents, extra.expand(len(latents), -1, -1, -1)], 1)
            states, added = self._conditions(embeddings.to(network.dtype), latents)
            output = network(
                inputs.to(network.dtype),
                timesteps,
                encoder_hidden_states=states,
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
            return to_epsilon(output, latents, self.alpha_bars[timesteps], kind)

        return denoise

    def _conditions(self, embeddings: Tensor, latents: Tensor) -> tuple[Tensor, Any]:
        if not self.pooled:
            return embeddings, None
        height, width = (side * self.vae_factor for side in latents.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], device=latents.device)
        pooled = embeddings[:, -1, : self.pooled]
        added = {"text_embeds": pooled, "time_ids": sizes.expand(len(embeddings), -1)}
        return embeddings[:, :-1], added


@contextmanager
def frozen(*modules: Any) -> Iterator[None]:
    """Keep modules from storing what gradients of their weights need; undone afterwards."""
    weights = [weight for module in modules for weight in module.parameters()]
    asked = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, wanted in zip(weights, asked, strict=True):
            weight.requires_grad_(wanted)


def _shift(vae: Any) -> float:
    return float(vae.config.get("shift_factor", None) or 0.0)


def _largest_side(sample_size: Any) -> int:
    return max(sample_size) if isinstance(sample_size, list | tuple) else int(sample_size)


def _pooled_width(pipe: Any) -> int:
    encoder = getattr(pipe, "text_encoder_2", None)
    return 0 if encoder is None else int(encoder.config.projection_dim)
