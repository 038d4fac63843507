"""A diffusers pipeline that finds which word and which region do not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline
from papercommons.errors import DataError
from PIL import Image
from torch import Tensor

from d_tiil.calibration import Calibration
from d_tiil.clip import ClipModel
from d_tiil.inputs import ImageLike, open_picture
from d_tiil.loading import check_parts, load_parts
from d_tiil.masks import resize_mask
from d_tiil.model import DiffusionModel
from d_tiil.phrases import Phrase, content_phrases, content_words
from d_tiil.regions import bounding_box, largest_region
from d_tiil.result import DTIILResult, Embeddings, NoiseMap
from d_tiil.scores import plain_score
from d_tiil.settings import LocateSettings, read_settings, write_settings
from d_tiil.steps import Run, clip_scores
from d_tiil.tokens import check_text

Depth = Literal["score", "first", "full"]
DEPTHS = ("score", "first", "full")


class DTIILPipeline(DiffusionPipeline):
    """Locates inconsistencies of image and caption with any Stable Diffusion 1, 2 or XL model.

    No weight is ever changed. Of XL the pooled vector is aligned together with the states.

    Args:
        vae: AutoencoderKL.
        unet: UNet2DConditionModel that predicts noise or velocity.
        scheduler: whose table of alphas is used.
        text_encoder: CLIP text model.
        tokenizer: its tokenizer.
        text_encoder_2: the second one of XL.
        tokenizer_2: its tokenizer.

    Attributes:
        settings: taken where a call gives none; may be set.
        calibration: from labelled pairs, or None; may be set.
        clip: a CLIP model for further scores, or None; may be set.

    Raises:
        DataError: the parts cannot be used, for example those of a flow model.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _optional_components = ("text_encoder_2", "tokenizer_2")

    def __init__(
        self,
        vae: Any,
        unet: Any,
        scheduler: Any,
        text_encoder: Any,
        tokenizer: Any,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
    ) -> None:
        super().__init__()
        parts = {
            "vae": vae,
            "unet": unet,
            "scheduler": scheduler,
            "text_encoder": text_encoder,
            "tokenizer": tokenizer,
            "text_encoder_2": text_encoder_2,
            "tokenizer_2": tokenizer_2,
        }
        check_parts(parts, source=type(unet).__name__)
        self.register_modules(**parts)  # type: ignore[attr-defined]
        self.settings = LocateSettings()
        self.calibration: Calibration | None = None
        self.clip: ClipModel | None = None
        self._inpainting: SimpleNamespace | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | None = None,
        inpainting: str | Path | None = None,
        clip: str | Path | None = None,
        calibration: str | Path | None = None,
        **options: Any,
    ) -> DTIILPipeline:
        """Return the pipeline over a folder that diffusers wrote, or a hub id.

        Args:
            source: of a Stable Diffusion 1, 2 or XL pipeline; settings that it keeps in
                ``d_tiil.json`` become the pipeline's.
            dtype: of the weights; float32 if not given.
            inpainting: of an inpainting model, for the edit; else latents are blended.
            clip: of a CLIP model, see `ClipModel.from_pretrained`.
            calibration: file that `Calibration.save` wrote.
            options: for diffusers' ``from_pretrained``, for example variant.

        Raises:
            DataError: no such folder or file, or it cannot be used; the message says why.
        """
        settings = read_settings(source)
        judged = None if calibration is None else Calibration.load(calibration)
        pipe = cls(**load_parts(source, dtype=dtype, **options))
        pipe.settings, pipe.calibration = settings, judged
        if inpainting is not None:
            parts = load_parts(inpainting, dtype=dtype, inpainting=True, **options)
            pipe.use_inpainting(**parts)
        if clip is not None:
            pipe.clip = ClipModel.from_pretrained(clip)
        return pipe

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Write the model as a diffusers folder, with the settings in it."""
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        write_settings(save_directory, self.settings)

    def use_inpainting(self, **parts: Any) -> None:
        """Edit with an inpainting model from now on.

        Args:
            parts: of a pipeline, by their names there.

        Raises:
            DataError: they cannot be used.
        """
        check_parts(parts, source="inpainting", inpainting=True)
        self._inpainting = SimpleNamespace(**parts)

    def __call__(
        self,
        image: ImageLike,
        caption: str,
        *,
        depth: Depth = "full",
        settings: LocateSettings | None = None,
        phrases: list[Phrase] | None = None,
        seed: int = 0,
        resize: bool = True,
    ) -> DTIILResult:
        """Return where an image and its caption contradict each other.

        Args:
            image: PIL image, uint8 array (H, W, 3) or file.
            caption: what the image is said to show.
            depth: score: only the consistency (step 1 of the method); first: also mask and words,
                from M(E_aln, E_0); full: all four steps.
            settings: the pipeline's if not given.
            phrases: of the caption to score; found by a list of stop words if not given.
            seed: of all noise, the same on every device.
            resize: scale the image to the model's size; the mask has the image's own.

        Raises:
            DataError: the image or the caption cannot be used, or a loss is not finite.
            ValueError: options that do not go together.
        """
        how = settings or self.settings
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(DEPTHS)}, got {depth!r}")
        if how.scorer == "clip" and depth != "score" and (self.clip is None or depth == "first"):
            raise ValueError(
                "the scorer clip needs a CLIP model and depth full; take denoise or attention"
            )
        check_text(caption)
        given = open_picture(image)
        model = DiffusionModel(self)
        most = len(model.alpha_bars)
        if max(how.maps.steps, how.edit.steps) > most:
            raise ValueError(
                f"the model has {most} timesteps; take no more steps for maps and for the edit, "
                f"got {how.maps.steps} and {how.edit.steps}"
            )
        picture = model.fit(given, resize=resize)
        bar: Any = self.progress_bar  # type: ignore[attr-defined]
        run = Run(model, how, seed, lambda total: bar(total=total))
        embedding = model.encode_text([caption])
        if phrases is None:
            phrases = content_words(caption) if how.unit == "word" else content_phrases(caption)
        if depth != "score" and not phrases:
            raise DataError(f"the caption {caption!r} has no word that an image can contradict")
        return self._locate(run, given, picture, caption, embedding, phrases, depth)

    def _locate(
        self,
        run: Run,
        given: Image.Image,
        picture: Image.Image,
        caption: str,
        embedding: Tensor,
        phrases: list[Phrase],
        depth: Depth,
    ) -> DTIILResult:
        model, how = run.model, run.settings
        latents = model.encode(picture)
        aligned = run.align(latents, embedding, "alignment")
        gap = run.gap(latents, embedding, aligned.embedding)
        result = self._first(run, given, caption, embedding, aligned, gap)
        if depth == "score":
            return self._judged(replace(result, rows=model.rows), given)
        run.finetune(latents, aligned.embedding)
        threshold = self._threshold(how)
        if depth == "first":
            first = run.map(latents, aligned.embedding, embedding, threshold)
            result = replace(result, first=first, final=first)
        else:
            first = run.map(latents, aligned.embedding, embedding, how.edit.threshold)
            result = replace(result, first=first, final=_none(first), edited=picture)
            if first.mask.any():
                edited = run.edit(
                    picture, caption, latents, embedding, first.mask, self._inpainter(model)
                )
                there = model.encode(edited)
                denoised = run.align(there, embedding, "text denoising")
                where = latents if how.latent == "input" else there
                final = run.map(where, aligned.embedding, denoised.embedding, threshold)
                states = replace(result.embeddings, denoised=denoised.embedding.cpu())
                result = replace(
                    result, final=final, edited=edited, denoised=denoised, embeddings=states
                )
        return self._judged(self._words(run, result, given, picture, latents, phrases), given)

    def _first(
        self,
        run: Run,
        given: Image.Image,
        caption: str,
        embedding: Tensor,
        aligned: Any,
        gap: Any,
    ) -> DTIILResult:
        """Return what is known after step 1."""
        nothing = np.zeros((given.height, given.width), bool)
        return DTIILResult(
            mask=nothing,
            words=(),
            score=plain_score(gap),
            edited=None,
            consistent=None,
            caption=caption,
            candidates=(),
            region=nothing,
            box=None,
            final=None,
            first=None,
            scores={"gap": gap.value, "relative_gap": gap.relative},
            gap=gap,
            aligned=aligned._replace(embedding=aligned.embedding.cpu()),
            denoised=None,
            embeddings=Embeddings(embedding.cpu(), aligned.embedding.cpu()),
            settings=run.settings,
            seed=run.seed,
            seconds=run.seconds,
            rows=run.model.rows,
        )

    def _words(
        self,
        run: Run,
        result: DTIILResult,
        given: Image.Image,
        picture: Image.Image,
        latents: Tensor,
        phrases: list[Phrase],
    ) -> DTIILResult:
        """Return the result with mask, region and words."""
        assert result.final is not None
        mask = torch.from_numpy(result.final.mask)
        region = largest_region(mask)
        size, own = (given.height, given.width), (picture.height, picture.width)
        candidates = run.words(
            result.caption,
            phrases,
            latents,
            region.numpy(),
            result.edited,
            bounding_box(resize_mask(region, own)),
            self.clip,
        )
        edited = result.edited
        if edited is not None and edited.size != given.size:
            edited = edited.resize(given.size, Image.Resampling.LANCZOS)
        found = resize_mask(mask, size)
        large = resize_mask(region, size)
        most = max(candidates, key=lambda word: word.score, default=None)
        return replace(
            result,
            mask=found.numpy(),
            region=large.numpy(),
            box=bounding_box(large),
            edited=edited,
            candidates=candidates,
            words=() if most is None or not mask.any() else (most,),
            rows=run.model.rows,
            note="" if mask.any() else "no inconsistent region was found",
        )

    def _judged(self, result: DTIILResult, given: Image.Image) -> DTIILResult:
        """Return the result with further scores and the decision."""
        scores = dict(result.scores)
        if self.clip is not None:
            edited = result.edited
            scores |= clip_scores(self.clip, given, result.caption, result.box, edited)
        result = replace(result, scores=scores)
        if self.calibration is None:
            return result
        score = self.calibration.consistency(scores)
        consistent = self.calibration.is_consistent(score)
        result = replace(result, score=score, consistent=consistent)
        if not consistent:
            return result
        note = "image and caption were judged consistent"
        return replace(result, mask=np.zeros_like(result.mask), words=(), note=note)

    def _threshold(self, how: LocateSettings) -> float:
        known = None if self.calibration is None else self.calibration.map_threshold
        return how.threshold if known is None else known

    def _inpainter(self, model: DiffusionModel) -> DiffusionModel | None:
        if self._inpainting is None:
            return None
        for part in vars(self._inpainting).values():
            if isinstance(part, torch.nn.Module):
                part.to(model.device)
        inpainter = DiffusionModel(self._inpainting, model.device)
        if inpainter.vae_factor != model.vae_factor:
            raise DataError("inpainting: its latents have another size than the model's")
        return inpainter


def _none(found: NoiseMap) -> NoiseMap:
    """Return the map of nothing: what remains where there was nothing to edit."""
    return NoiseMap(
        np.zeros_like(found.raw), np.zeros_like(found.values), np.zeros_like(found.mask)
    )
