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
from multi_edits.edits import Edit, apply_edits, derive_edits, locate_edits
from multi_edits.grouping import Aspect, AspectGroup, Order, group_aspects, one_group
from multi_edits.inputs import ImageLike, check_held, latent_regions, open_picture
from multi_edits.loading import check_parts, load_parts
from multi_edits.model import EditingModel
from multi_edits.options import Mode
from multi_edits.per_word import edit_regions, plan_per_word
from multi_edits.planning import BranchPlan, find_aspects, plan_branches
from multi_edits.words import strip_brackets

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class GroupingSettings:
    """How edits are typed and grouped.

    Attributes:
        steps: of the short pass that collects attention maps; paper: at most 5.
        theta: least overlap of old and new map of a rigid edit, in [0, 1]; paper: 0.9.
        beta: least covered share of the image of a global edit, in [0, 1]; paper: 0.8.
        group_threshold: least overlap of two edits of one branch, in [0, 1]; paper: 0.9.
        order: which kind comes first.
    """

    steps: int = 5
    theta: float = 0.9
    beta: float = 0.8
    group_threshold: float = 0.9
    order: Order = "rigid-first"


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
        run = _Run(EditingModel(self), settings, grouping or GroupingSettings(), seed)
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
        run = _Run(
            EditingModel(self), settings or SamplingSettings(), grouping or GroupingSettings(), seed
        )
        source = strip_brackets(source_prompt)
        latents = run.model.encode(run.model.fit(open_picture(image), resize=resize))
        return run.group(latents, source, locate_edits(source, edits))


_Outcome = tuple[tuple[str, ...], list[Image.Image], Tensor, Tensor]


@dataclass(frozen=True)
class _Run:
    """One call of the pipeline: its networks and settings."""

    model: EditingModel
    settings: SamplingSettings
    grouping: GroupingSettings
    seed: int

    def group(
        self, latents: Tensor, source: str, edits: Sequence[Edit]
    ) -> tuple[list[AspectGroup], tuple[Aspect, ...]]:
        """Sample source and target for a few steps, and type the edits by their maps."""
        wanted = tuple(k for k, edit in enumerate(edits) if edit.strength > 0)
        plan = self.plan(source, edits, [AspectGroup("rigid", wanted)], {})
        samples = self.model.sample(
            latents,
            plan.prompts,
            [replace(plan.branches[0], kind="global", sharing=None)],
            self.model.timesteps(self.grouping.steps),
            replace(self.settings, compat="paper", layout=False),
            self.seed,
            keep_maps=True,
        )
        assert samples.maps is not None
        aspects = find_aspects(
            source,
            edits,
            samples.maps,
            tokenizer=self.model.pipe.tokenizer,
            map_size=self.model.map_size(latents, self.settings),
        )
        groups = group_aspects(
            aspects,
            theta=self.grouping.theta,
            beta=self.grouping.beta,
            group_threshold=self.grouping.group_threshold,
            order=self.grouping.order,
        )
        return groups, tuple(aspects)

    def regions(self, latents: Tensor, aspects: Sequence[Aspect]) -> dict[int, Tensor]:
        """Return where each edit is seen."""
        return edit_regions(
            aspects, self.settings.thresh_edit, (latents.shape[-2], latents.shape[-1])
        )

    def together(self, latents: Tensor, plan: BranchPlan, timesteps: Sequence[int]) -> _Outcome:
        """Run all branches at once."""
        samples = self.model.sample(
            latents, plan.prompts, plan.branches, timesteps, self.settings, self.seed
        )
        return plan.prompts, self.model.decode(samples.x0), samples.masks, samples.x0

    def one_by_one(
        self,
        latents: Tensor,
        source: str,
        edits: Sequence[Edit],
        groups: Sequence[AspectGroup],
        timesteps: Sequence[int],
        regions: Mapping[int, Tensor],
    ) -> _Outcome:
        """Make one edit after another, each on the 8-bit image that the one before gave."""
        prompts, images = [source], list[Image.Image]()
        masks, made = list[Tensor](), list[Tensor]()
        for n, group in enumerate(groups):
            (index,) = group.edits
            state = apply_edits(source, edits, [g.edits[0] for g in groups[:n]])
            edit = replace(edits[index], position=state.places[index][0])
            region = {0: regions[index]} if index in regions else {}
            start = self.model.encode(images[-1]) if images else latents
            alone = [replace(group, edits=(0,))]
            plan = self.plan(state.text, [edit], alone, region)
            after, result, mask, x0 = replace(self, seed=self.seed + n).together(
                start, plan, timesteps
            )
            prompts.append(after[-1])
            images += result
            masks.append(mask[0])
            made.append(x0)
        return tuple(prompts), images, torch.stack(masks), torch.cat(made)

    def plan(
        self,
        source: str,
        edits: Sequence[Edit],
        groups: Sequence[AspectGroup],
        regions: Mapping[int, Tensor],
    ) -> BranchPlan:
        """Return one branch for each group."""
        return plan_branches(
            source,
            edits,
            groups,
            tokenizer=self.model.pipe.tokenizer,
            encode=lambda prompts: self.model.prompts(prompts).states,
            masks=regions,
            compat=self.settings.compat,
        )

    def plan_per_word(
        self,
        source: str,
        edits: Sequence[Edit],
        groups: Sequence[AspectGroup],
        regions: Mapping[int, Tensor],
    ) -> BranchPlan:
        """Return one branch for all groups."""
        return plan_per_word(
            source,
            edits,
            groups,
            regions,
            tokenizer=self.model.pipe.tokenizer,
            encode=lambda prompts: self.model.prompts(prompts).states,
        )
