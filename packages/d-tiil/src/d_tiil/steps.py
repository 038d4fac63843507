"""The four steps of one run: align, edit, denoise the text, locate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from papercommons.data.sampling import mix_seeds
from papercommons.errors import DataError
from PIL import Image
from torch import Tensor

from d_tiil.alignment import Alignment, align_embedding
from d_tiil.attention import mean_attention
from d_tiil.clip import TEMPLATE, ClipModel
from d_tiil.editing import inpaint, inpainting_channels
from d_tiil.finetuning import finetune_copy
from d_tiil.maps import map_timesteps, noise_difference_map
from d_tiil.masks import resize_mask, scale_map, threshold_map, to_bytes
from d_tiil.model import DiffusionModel, frozen
from d_tiil.noise import add_noise, fixed_pairs
from d_tiil.phrases import Phrase, neutralised
from d_tiil.regions import Box
from d_tiil.result import NoiseMap
from d_tiil.scores import DenoisingGap, denoising_errors, gap_of
from d_tiil.settings import LocateSettings
from d_tiil.tokens import token_positions
from d_tiil.word_scores import WordScore, attention_scores, removal_scores, score_phrases

ALIGN, MAP, EDIT, GRID, ATTENTION = range(5)  # streams of noise of one seed


@dataclass
class Run:
    """One pair of image and caption on its way; methods are the steps.

    Attributes:
        model: the networks.
        settings: of the method.
        seed: of all noise.
        progress: gives a bar, called with the number of steps.
        unet: network of the maps and of text denoising: the model's, or a fine-tuned copy.
        seconds: by step.
    """

    model: DiffusionModel
    settings: LocateSettings
    seed: int
    progress: Callable[[int], Any]
    unet: Any = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note how long a step takes."""
        started = time.perf_counter()
        yield
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started

    def align(self, latents: Tensor, embedding: Tensor, step: str) -> Alignment:
        """Return the embedding aligned to an image; the same noise for each image of a run.

        Args:
            latents: of the image, float, shape (1, C, h, w).
            embedding: of the caption, float, shape (1, L, D).
            step: its name in `seconds`.
        """
        how = self.settings.alignment
        unet = self.model.pipe.unet if self.unet is None else self.unet
        with self.timed(step), frozen(unet), self.progress(how.steps) as bar:
            return align_embedding(
                self.model.denoiser(unet),
                latents,
                embedding,
                alpha_bars=self.model.alpha_bars,
                settings=how,
                seed=mix_seeds(self.seed, ALIGN),
                max_rows=self.settings.max_rows,
                on_step=bar.update,
            )

    def finetune(self, latents: Tensor, aligned: Tensor) -> None:
        """Go on with a fine-tuned copy of the network, if the settings want one.

        Args:
            latents: of the image, float, shape (1, C, h, w).
            aligned: embedding, float, shape (1, L, D).
        """
        how = self.settings.alignment
        if how.finetune_steps:
            with self.timed("finetune"):
                self.unet = finetune_copy(
                    self.model.pipe.unet,
                    self.model.denoiser,
                    latents,
                    aligned,
                    alpha_bars=self.model.alpha_bars,
                    steps=how.finetune_steps,
                    lr=how.finetune_lr,
                    seed=mix_seeds(self.seed, ALIGN, 1),
                )

    def errors(self, latents: Tensor, embeddings: Tensor) -> Tensor:
        """Return denoising errors, float32 (K, N), on the fixed grid, the same for a seed.

        Args:
            latents: of the image, float, shape (1, C, h, w).
            embeddings: K of them, float, shape (K, L, D).

        Raises:
            DataError: an error is not finite.
        """
        model = self.model
        pairs = fixed_pairs(
            self.settings.pairs,
            tuple(latents.shape[1:]),
            seed=mix_seeds(self.seed, GRID),
            train_steps=len(model.alpha_bars),
        )
        errors = denoising_errors(
            model.denoiser(),
            latents,
            embeddings,
            pairs,
            alpha_bars=model.alpha_bars,
            max_rows=self.settings.max_rows,
        )
        if not bool(errors.isfinite().all()):
            raise DataError("a denoising error is not finite; load the model in float32")
        return errors

    def gap(self, latents: Tensor, first: Tensor, second: Tensor) -> DenoisingGap:
        """Return the denoising gap of two embeddings.

        Args:
            latents: of the image, float, shape (1, C, h, w).
            first: embedding, float, shape (1, L, D).
            second: likewise.
        """
        with self.timed("score"):
            errors = self.errors(latents, torch.cat([first, second])).double()
            return gap_of(errors[0], errors[1])

    def map(self, latents: Tensor, first: Tensor, second: Tensor, threshold: float) -> NoiseMap:
        """Return the map of two embeddings and its mask.

        Args:
            latents: of the image, float, shape (1, C, h, w).
            first: embedding, float, shape (1, L, D).
            second: likewise.
            threshold: of the mask, in (0, 1).
        """
        how, model = self.settings.maps, self.model
        empty = model.encode_text([""]) if how.kind == "trajectory" else None
        with self.timed("maps"):
            raw = noise_difference_map(
                model.denoiser(self.unet),
                latents,
                first,
                second,
                alpha_bars=model.alpha_bars,
                empty=empty,
                settings=how,
                seed=mix_seeds(self.seed, MAP),
                max_rows=self.settings.max_rows,
            ).cpu()
            values = to_bytes(scale_map(raw, clamp=how.clamp))
            mask = threshold_map(values, threshold, blur=how.blur)
        return NoiseMap(raw.numpy(), values.numpy(), mask.numpy())

    def edit(
        self,
        picture: Image.Image,
        caption: str,
        latents: Tensor,
        embedding: Tensor,
        mask: np.ndarray,
        inpainting: DiffusionModel | None,
    ) -> Image.Image:
        """Return the image drawn anew inside a mask, towards the caption.

        Args:
            picture: the image.
            caption: what it is said to show.
            latents: of the image, float, shape (1, C, h, w).
            embedding: of the caption, float, shape (1, L, D).
            mask: bool, shape (h, w).
            inpainting: a model of 9 channels; None blends latents of the model itself.
        """
        how = self.settings.edit
        inside = torch.from_numpy(mask).to(latents.device)
        with self.timed("edit"):
            if inpainting is None:
                model, texts, extra = self.model, [embedding, self.model.encode_text([""])], None
            else:
                model = inpainting
                texts = list(model.encode_text([caption, ""]).split(1))
                extra = _inpainting_extra(model, picture, inside)
                latents = extra[:, 1:]
            drawn = inpaint(
                model.denoiser(extra=extra),
                latents,
                _fitted(inside, latents),
                *texts,
                alpha_bars=model.alpha_bars,
                steps=how.steps,
                guidance=how.guidance,
                seed=mix_seeds(self.seed, EDIT),
                blend=inpainting is None,
            )
            if inpainting is not None:
                self.model.rows += inpainting.rows
            return model.decode(drawn)

    def words(
        self,
        caption: str,
        phrases: Sequence[Phrase],
        latents: Tensor,
        region: np.ndarray,
        edited: Image.Image | None,
        box: Box | None,
        clip: ClipModel | None,
    ) -> tuple[WordScore, ...]:
        """Return the scores of all phrases by the scorer of the settings.

        Args:
            caption: of the pair.
            phrases: of it.
            latents: of the image, float, shape (1, C, h, w).
            region: that contradicts, bool, shape (h, w).
            edited: image, for the scorer clip.
            box: of the region in the edited image, for the scorer clip.
            clip: model, for the scorer clip.

        Returns:
            nothing where the scorer clip lacks one of its three.
        """
        if not phrases:
            return ()
        with self.timed("words"):
            kind = self.settings.scorer
            if kind == "denoise":
                scores = self._removal(caption, phrases, latents)
            elif kind == "attention":
                scores = self._attention(caption, phrases, latents, region)
            elif edited is None or box is None or clip is None:
                return ()
            else:
                crop = edited.crop((box.left, box.top, box.right + 1, box.bottom + 1))
                texts = [TEMPLATE.format(phrase.text) for phrase in phrases]
                scores = clip.likeness([crop], texts)[0]
            return score_phrases(phrases, scores)

    def _removal(self, caption: str, phrases: Sequence[Phrase], latents: Tensor) -> Tensor:
        without = [neutralised(caption, phrase, self.settings.neutral) for phrase in phrases]
        errors = self.errors(latents, self.model.encode_text([caption, *without]))
        return removal_scores(errors[0], errors[1:])

    def _attention(
        self, caption: str, phrases: Sequence[Phrase], latents: Tensor, region: np.ndarray
    ) -> Tensor:
        model, how = self.model, self.settings.maps
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, ATTENTION))
        noise = torch.randn(how.draws, *latents.shape[1:], generator=generator).to(latents.device)
        timesteps = map_timesteps(how, len(model.alpha_bars)).to(latents.device)
        noised = add_noise(latents, noise, model.alpha_bars[timesteps])
        embedding = model.encode_text([caption]).expand(how.draws, -1, -1)
        maps = mean_attention(
            model.pipe.unet,
            model.denoiser(),
            (noised, timesteps, embedding),
            max_rows=self.settings.max_rows,
        )
        tokens = [token_positions(caption, phrase, model.pipe.tokenizer) for phrase in phrases]
        return attention_scores(maps.cpu(), tokens, torch.from_numpy(region))


def _inpainting_extra(model: DiffusionModel, picture: Image.Image, inside: Tensor) -> Tensor:
    """Return mask and latents of the image with the masked part grey, (1, 1 + C, h, w)."""
    pixels = model.images.preprocess(picture)
    large = _fitted(inside, pixels).to(pixels.device)
    return inpainting_channels(inside, model.encode_pixels(pixels * ~large))


def _fitted(mask: Tensor, like: Tensor) -> Tensor:
    return resize_mask(mask, (like.shape[-2], like.shape[-1]))


def clip_scores(
    clip: ClipModel,
    picture: Image.Image,
    caption: str,
    box: Box | None,
    edited: Image.Image | None,
) -> dict[str, float]:
    """Return cosines of a CLIP model.

    Args:
        clip: the model.
        picture: the image.
        caption: its text.
        box: of the region; all else is made grey for clip_region.
        edited: the image as the caption would have it.

    Returns:
        clip_pair: image and caption; clip_region: the image in the box and the caption; clip_edit:
        image and edited image. The last two only where box or edited image are there.
    """
    pictures = [picture]
    if box is not None:
        corners = (box.left, box.top, box.right + 1, box.bottom + 1)
        blank = Image.new("RGB", picture.size, (127, 127, 127))
        blank.paste(picture.crop(corners), corners[:2])
        pictures.append(blank)
    images, text = clip.embed_images(pictures), clip.embed_texts([caption])[0]
    scores = {"clip_pair": float(images[0] @ text)}
    if box is not None:
        scores["clip_region"] = float(images[1] @ text)
    if edited is not None:
        scores["clip_edit"] = float(images[0] @ clip.embed_images([edited])[0])
    return scores
