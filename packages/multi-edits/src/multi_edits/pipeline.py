"""A diffusers pipeline that makes many edits of one image at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from multi_edits.branches import SamplingSettings
from multi_edits.editing_run import EditingRun
from multi_edits.edits import Edit, derive_edits, locate_edits
from multi_edits.grouping import Aspect, AspectGroup, GroupingSettings, one_group
from multi_edits.inputs import ImageLike, check_held, latent_regions, open_picture
from multi_edits.loading import check_parts, load_parts
from multi_edits.model import EditingModel
from multi_edits.options import Mode
from multi_edits.words import strip_brackets

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class MultiEditsOutput:
    """An edited image and how it came about.

    Attributes:
        image: the result.
        edits: with their positions in the source prompt.
        groups: of the edits, in the order of the branches or of the runs; with mode per-word all
            of them have the one branch.
        aspects: with their attention maps; empty if there was no grouping pass.
        prompts: the source's, then one for each branch or run.
        masks: where each branch differs from the one before, bool, (N, h, w) at the size of the
            latents; None without edits.
        branches: the image of each branch or run, the last being `image`.
        latents: of the source, then of each branch or run, float32, (1 + N, C, h, w).
        rows: how many images the network was given, the grouping pass included.
    """

    image: Image.Image
    edits: tuple[Edit, ...]
    groups: tuple[AspectGroup, ...]
    aspects: tuple[Aspect, ...]
    prompts: tuple[str, ...]
    masks: Tensor | None
    branches: tuple[Image.Image, ...]
    latents: Tensor
    rows: int


class MultiEditsPipeline(DiffusionPipeline):
    """Edits many aspects of an image in one run, with any Stable Diffusion 1, 2 or XL model.

    Args:
        vae: AutoencoderKL.
        unet: UNet2DConditionModel that predicts noise or velocity.
        scheduler: whose table of alphas is used; a consistency model's timesteps if it is an
            LCMScheduler.
        text_encoder: CLIP text model.
        tokenizer: its tokenizer.
        text_encoder_2: the second one of XL.
        tokenizer_2: its tokenizer.
        force_zeros_for_empty_prompt: as in diffusers' XL pipeline: the empty prompt is zeros.

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
        force_zeros_for_empty_prompt: bool = False,
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
        zeros = {"force_zeros_for_empty_prompt": force_zeros_for_empty_prompt}
        self.register_to_config(**zeros)  # type: ignore[attr-defined]

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, dtype: torch.dtype | None = None, **options: Any
    ) -> MultiEditsPipeline:
        """Return the pipeline over a folder that diffusers wrote, or a hub id.

        Args:
            source: of a Stable Diffusion 1, 2 or XL pipeline, LCM or plain.
            dtype: of the weights; float32 if not given.
            options: for diffusers' ``from_pretrained``, for example variant.

        Raises:
            DataError: no such folder, or its model cannot be used; the message says why.
        """
        return cls(**load_parts(source, dtype=dtype, **options))

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike,
        *,
        source_prompt: str,
        target_prompt: str | None = None,
        edits: Sequence[Edit] | None = None,
        mode: Mode = "per-word",
        steps: int = 15,
        settings: SamplingSettings | None = None,
        grouping: GroupingSettings | None = None,
        groups: Sequence[AspectGroup] | None = None,
        aspects: Sequence[Aspect] | None = None,
        masks: Mapping[int, np.ndarray | Tensor] | None = None,
        latents: Tensor | None = None,
        seed: int = 0,
        resize: bool = False,
    ) -> MultiEditsOutput:
        """Return the image with all edits made; without any, the image itself.

        Args:
            image: PIL image, uint8 array (H, W, 3) or file.
            source_prompt: what the image shows.
            target_prompt: what the result shall show; its edits are derived, brackets around
                phrases help. Either this or `edits`.
            edits: what to change, each with its strength.
            mode: all edits in one branch, each with its own control and region (per-word, ours,
                see `multi_edits.per_word`), a branch for each group of edits (parallel, the
                paper's), all in one branch with one control (single), or one run for each edit,
                each on the 8-bit image that the one before gave (sequential).
            steps: at least 2; paper: 15.
            settings: of the sampling; the paper's if not given.
            grouping: how edits are typed and grouped; the paper's if not given.
            groups: those of an earlier result, or made up; the grouping pass is left out, but mode
                per-word needs it for the regions of the edits.
            aspects: those of the same edits, from `find_groups` or an earlier result; with `groups`
                there is no such pass in any mode.
            masks: index of an edit -> where it may change the image, (H, W) of the image.
            latents: of the image, if they are known, float, (1, C, h, w); it is not encoded then.
            seed: of the noise, the same on every device.
            resize: fit sides to the autoencoder's factor.

        Raises:
            DataError: a prompt, an edit, the image or a mask does not fit.
            ValueError: an option is out of range.
        """
        if (target_prompt is None) == (edits is None):
            raise ValueError("pass either target_prompt or edits")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode}")
        settings = settings or SamplingSettings()
        if mode == "per-word" and settings.compat == "reference":
            raise ValueError("compat reference is of several branches; take mode parallel")
        run = EditingRun(EditingModel(self), settings, grouping or GroupingSettings(), seed)
        timesteps = run.model.timesteps(steps)
        picture = run.model.fit(open_picture(image), resize=resize)
        source = strip_brackets(source_prompt)
        given = derive_edits(source, target_prompt or "") if edits is None else edits
        wanted = locate_edits(source, given)
        latents = run.model.encode(picture) if latents is None else run.model.take(latents, picture)
        if not any(edit.strength > 0 for edit in wanted):
            return MultiEditsOutput(
                picture, tuple(wanted), (), (), (source,), None, (), latents.cpu(), 0
            )
        regions = latent_regions(masks or {}, len(wanted), picture, latents)
        for name, parts in (("groups", groups), ("aspects", aspects)):
            if parts is not None:
                check_held(name, parts, wanted)
        if groups is None or (mode == "per-word" and aspects is None):
            found, aspects = run.group(latents, source, wanted)
            groups = found if groups is None else groups
        aspects = tuple(aspects or ())
        if mode == "single":
            groups = [one_group(groups)]
        if mode == "sequential":
            groups = [replace(g, edits=(edit,)) for g in groups for edit in g.edits]
            done = run.one_by_one(latents, source, wanted, groups, timesteps, regions)
        else:
            if mode == "per-word":
                regions = run.regions(latents, aspects) | regions
                plan = run.plan_per_word(source, wanted, groups, regions)
            else:
                plan = run.plan(source, wanted, groups, regions)
            done = run.together(latents, plan, timesteps)
        prompts, images, changed, made = done
        return MultiEditsOutput(
            images[-1],
            tuple(wanted),
            tuple(groups),
            aspects,
            prompts,
            changed.cpu(),
            tuple(images),
            torch.cat([latents, made]).cpu(),
            run.model.rows,
        )

    @torch.no_grad()
    def find_groups(
        self,
        image: ImageLike,
        *,
        source_prompt: str,
        edits: Sequence[Edit],
        settings: SamplingSettings | None = None,
        grouping: GroupingSettings | None = None,
        seed: int = 0,
        resize: bool = False,
    ) -> tuple[list[AspectGroup], tuple[Aspect, ...]]:
        """Return the groups of edits and their aspects, from one short pass.

        Args:
            image: as for a call.
            source_prompt: what the image shows.
            edits: what to change.
            settings: of the sampling; the paper's if not given.
            grouping: the paper's if not given.
            seed: of the noise.
            resize: fit sides to the autoencoder's factor.

        Raises:
            DataError: a prompt, an edit or the image does not fit.
        """
        settings, grouping = settings or SamplingSettings(), grouping or GroupingSettings()
        run = EditingRun(EditingModel(self), settings, grouping, seed)
        source = strip_brackets(source_prompt)
        latents = run.model.encode(run.model.fit(open_picture(image), resize=resize))
        return run.group(latents, source, locate_edits(source, edits))
