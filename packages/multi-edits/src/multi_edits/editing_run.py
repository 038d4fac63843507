"""One call of the pipeline, step by step: grouping, planning, sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from multi_edits.branches import SamplingSettings
from multi_edits.edits import Edit, apply_edits
from multi_edits.grouping import Aspect, AspectGroup, GroupingSettings, group_aspects
from multi_edits.model import EditingModel
from multi_edits.per_word import edit_regions, plan_per_word
from multi_edits.planning import BranchPlan, find_aspects, plan_branches

Outcome = tuple[tuple[str, ...], list[Image.Image], Tensor, Tensor]
"""Prompts, pictures, masks (N, h, w) and latents (N, C, h, w) of the branches or runs."""


@dataclass(frozen=True)
class EditingRun:
    """One call of the pipeline: its networks and settings.

    Attributes:
        model: networks, and how many rows they were given.
        settings: of the sampling.
        grouping: how edits are typed and grouped.
        seed: of the noise.
    """

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
            aspects, self.settings.edit_threshold, (latents.shape[-2], latents.shape[-1])
        )

    def together(self, latents: Tensor, plan: BranchPlan, timesteps: Sequence[int]) -> Outcome:
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
    ) -> Outcome:
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
