"""The parts of a Stable Diffusion pipeline as the multi-branch loop needs them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from papercommons.errors import DataError
from PIL import Image
from torch import Tensor

from multi_edits.attention import controlled_attention, map_level, map_size
from multi_edits.branches import Branch, SamplingSettings, row_prompts
from multi_edits.ddcm import LEAST_ALPHA_BAR, lcm_timesteps, to_epsilon, trailing_timesteps
from multi_edits.encoding import EncodedPrompts, encode_prompts
from multi_edits.sampling import BranchSamples, sample_branches


class EditingModel:
    """A pipeline's networks, called with images, prompts and branches; counts network rows.

    Args:
        pipe: a diffusers pipeline with the parts of Stable Diffusion 1, 2 or XL.

    Attributes:
        rows: how many images the network was given so far.
        vae_factor: pixels for each latent.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.rows = 0
        self.vae_factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        self.images = VaeImageProcessor(vae_scale_factor=self.vae_factor)
        self.device = torch.device(pipe._execution_device)
        if self.device.type == "cpu" and pipe.unet.dtype == torch.float16:
            raise ValueError("float16 needs a GPU; load the model in float32")

    def timesteps(self, steps: int) -> list[int]:
        """Return falling timesteps: those of a consistency model, or evenly spread ones.

        Raises:
            ValueError: fewer than 2, or more than the scheduler has.
        """
        if steps < 2:
            raise ValueError(f"steps must be at least 2, got {steps}")
        scheduler = self.pipe.scheduler
        train_steps = int(scheduler.config.num_train_timesteps)
        if type(scheduler).__name__ == "LCMScheduler":
            original = int(scheduler.config.original_inference_steps)
            return lcm_timesteps(steps, original_steps=original, train_steps=train_steps)
        return trailing_timesteps(steps, train_steps=train_steps)

    def map_size(self, latents: Tensor, settings: SamplingSettings) -> tuple[int, int]:
        """Return height and width of the kept attention maps."""
        level = map_level(self.pipe.unet, settings.map_level)
        return map_size((latents.shape[-2], latents.shape[-1]), level)

    def fit(self, image: Image.Image, *, resize: bool, multiple_of: int = 1) -> Image.Image:
        """Return the image with sides that the autoencoder can take.

        Args:
            image: of any size.
            resize: change sides to the nearest multiples.
            multiple_of: what sides must be multiples of, beside the autoencoder's factor.

        Raises:
            DataError: the sides do not fit, and `resize` is false.
        """
        factor = math.lcm(self.vae_factor, multiple_of)
        sides = [max(factor, round(side / factor) * factor) for side in image.size]
        if list(image.size) == sides:
            return image
        if not resize:
            raise DataError(
                f"the image has {image.width} x {image.height} pixels and the model needs "
                f"multiples of {factor}; resize it, for example to {sides[0]} x {sides[1]}"
            )
        return image.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)

    def prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Return the states of prompts."""
        pipe = self.pipe
        encoders = [(pipe.tokenizer, pipe.text_encoder)]
        if pipe.text_encoder_2 is not None:
            encoders.append((pipe.tokenizer_2, pipe.text_encoder_2))
        return encode_prompts(prompts, encoders, device=self.device)

    @torch.no_grad()
    def encode(self, image: Image.Image) -> Tensor:
        """Return the latents of an image, the autoencoder's mode, float32, (1, C, h, w)."""
        vae = self._vae()
        pixels = self.images.preprocess(image).to(self.device, vae.dtype)
        latents = vae.encode(pixels).latent_dist.mode().float()
        return (latents - _shift(vae)) * vae.config.scaling_factor

    def take(self, latents: Tensor, image: Image.Image) -> Tensor:
        """Return latents of an image that were encoded before, on the device.

        Raises:
            DataError: they are not the size of the image's.
        """
        size = [side // self.vae_factor for side in (image.height, image.width)]
        expected = [1, int(self.pipe.vae.config.latent_channels), *size]
        if list(latents.shape) != expected:
            raise DataError(f"latents must be {expected}, got {list(latents.shape)}")
        return latents.to(self.device, torch.float32)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Return the images of latents, (N, C, h, w).

        Raises:
            DataError: a latent is not finite.
        """
        if not bool(latents.isfinite().all()):
            raise DataError(
                "the model gave latents that are not finite; try float32, or lower guidance"
            )
        vae = self._vae()
        scaled = (latents / vae.config.scaling_factor + _shift(vae)).to(vae.dtype)
        pixels = [vae.decode(one[None], return_dict=False)[0] for one in scaled]
        return list(self.images.postprocess(torch.cat(pixels).float(), output_type="pil"))

    def _vae(self) -> Any:
        vae = self.pipe.vae
        if vae.dtype == torch.float16 and vae.config.get("force_upcast", False):
            vae.to(dtype=torch.float32)  # it overflows in half precision
        return vae

    def sample(
        self,
        latents: Tensor,
        prompts: Sequence[str],
        branches: Sequence[Branch],
        timesteps: Sequence[int],
        settings: SamplingSettings,
        seed: int,
        *,
        keep_maps: bool = False,
    ) -> BranchSamples:
        """Run the multi-branch loop.

        Args:
            latents: of the source, (1, C, h, w).
            prompts: of the source and of each branch.
            branches: N of them.
            timesteps: falling.
            settings: of the sampling.
            seed: of the noise.
            keep_maps: keep attention maps even where no branch needs them.
        """
        pipe = self.pipe
        rows = row_prompts(len(branches), layout=settings.has_layout)
        empty = [""] if settings.guided else []
        states, pooled = self.prompts([*empty, *prompts])
        index = [0] * len(rows) + [row + 1 for row in rows] if empty else rows
        states = states[index]
        added = None
        if pooled is not None:
            if empty and pipe.config.force_zeros_for_empty_prompt:
                states, pooled = states.clone(), pooled.clone()
                states[: len(rows)] = pooled[0] = 0
            height, width = (side * self.vae_factor for side in latents.shape[-2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]], device=self.device)
            added = {"text_embeds": pooled[index], "time_ids": sizes.expand(len(index), -1)}
        alpha_bars = pipe.scheduler.alphas_cumprod.double().clamp_min(LEAST_ALPHA_BAR).tolist()
        kind = pipe.scheduler.config.get("prediction_type", "epsilon")

        def network(x: Tensor, timestep: int) -> Tensor:
            self.rows += len(x)
            output = pipe.unet(
                x.to(pipe.unet.dtype),
                timestep,
                encoder_hidden_states=states,
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
            return to_epsilon(output, x, alpha_bars[timestep], kind)

        with (
            pipe.progress_bar(total=len(timesteps)) as bar,
            controlled_attention(pipe.unet, keep_level=settings.map_level) as control,
        ):
            return sample_branches(
                network,
                control,
                branches,
                x0=latents,
                noises=_noises(latents, seed),
                timesteps=timesteps,
                alpha_bars=alpha_bars,
                map_size=self.map_size(latents, settings),
                settings=settings,
                keep_maps=keep_maps,
                on_step=lambda _: bar.update(),
            )


def _shift(vae: Any) -> float:
    return float(vae.config.get("shift_factor", None) or 0.0)


def _noises(like: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield standard normal tensors, drawn on the CPU, so that they are the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(like.shape, generator=generator).to(like.device)
