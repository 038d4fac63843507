"""One branch in which every edit has its own attention control and its own region.

What a single branch lacks against several is that all its edits share one control and one mask.
Here each word follows its own type, and a region is where the map of its own edit, scaled by
itself, is above the threshold. Self-attention cannot differ by edit; it is that of the single arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from multi_edits.alignment import AttentionMix, align, refine_mix
from multi_edits.blending import latent_mask
from multi_edits.branches import SamplingSettings
from multi_edits.edits import Edit, apply_edits
from multi_edits.grouping import Aspect, AspectGroup, one_group
from multi_edits.model import EditingModel
from multi_edits.planning import all_made, plan_branches
from multi_edits.words import tokenize
from PIL import Image
from torch import Tensor


def edit_per_word(
    model: EditingModel,
    image: Image.Image,
    source: str,
    edits: Sequence[Edit],
    groups: Sequence[AspectGroup],
    aspects: Sequence[Aspect],
    *,
    steps: int,
    settings: SamplingSettings,
    seed: int,
) -> Image.Image:
    """Return the image with all edits made in one branch.

    Args:
        model: of the pipeline.
        image: its sides fit.
        source: prompt.
        edits: from `multi_edits.edits.locate_edits`.
        groups: tell the kind of each edit.
        aspects: with the maps of the edits.
        steps: of the sampling.
        settings: of the sampling.
        seed: of the noise.
    """
    latents = model.encode(image)
    size = (latents.shape[-2], latents.shape[-1])
    group = one_group(groups)
    plan = plan_branches(
        source,
        edits,
        [group],
        tokenizer=model.pipe.tokenizer,
        encode=lambda prompts: model.prompts(prompts).states,
        masks=_regions(aspects, settings.thresh_edit, size),
        compat=settings.compat,
    )
    rigid = {edit for each in groups if each.kind == "rigid" for edit in each.edits}
    mix = None
    if group.kind != "global":
        mix = _mix(source, edits, rigid, model.pipe.tokenizer)
    branch = replace(plan.branches[0], mix=mix)
    samples = model.sample(latents, plan.prompts, [branch], model.timesteps(steps), settings, seed)
    return model.decode(samples.x0)[-1]


def _regions(
    aspects: Sequence[Aspect], threshold: float, size: tuple[int, int]
) -> dict[int, Tensor]:
    """Return for each edit where the map of its old or new phrase is above the threshold."""
    regions: dict[int, Tensor] = {}
    for aspect in aspects:
        maps = [levels for levels in (aspect.source, aspect.target) if levels is not None]
        seen = torch.stack([levels >= threshold * levels.amax() for levels in maps]).any(0)
        regions |= {edit: latent_mask(seen, size) for edit in aspect.edits}
    return regions


def _mix(source: str, edits: Sequence[Edit], rigid: set[int], tokenizer: object) -> AttentionMix:
    """Return the mix: words of rigid edits attend where the old ones did, others by themselves."""
    states = apply_edits(source, edits, ()), all_made(source, edits)
    before, after = (tokenize(state.text, tokenizer) for state in states)
    partner = list(align(before.ids, after.ids))
    for number, edit in enumerate(edits):
        new = after.tokens_of(*states[1].places[number]) if edit.new else []
        old = before.tokens_of(*states[0].places[number]) if edit.old else []
        follows = number in rigid and len(old) == len(new)
        for k, token in enumerate(new):
            partner[token] = old[k] if follows else -1
    return refine_mix(partner, after.length)
