"""One branch in which every edit has its own control of attention, region and strength (ours).

What one branch lacks against several is that all its edits share a control and a mask. Here words
of rigid edits attend where the words before them did, all other new words where they will, and an
edit's region is where the map of its own phrase, scaled by itself, is above the threshold.
Self-attention cannot differ by edit; it is that of a single branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from multi_edits.alignment import AttentionMix, align, refine_mix
from multi_edits.blending import latent_mask
from multi_edits.edits import Edit, apply_edits
from multi_edits.grouping import Aspect, AspectGroup, one_group
from multi_edits.planning import BranchPlan, all_made, plan_branches
from multi_edits.words import tokenize


def plan_per_word(
    source: str,
    edits: Sequence[Edit],
    groups: Sequence[AspectGroup],
    regions: Mapping[int, Tensor],
    *,
    tokenizer: Any,
    encode: Callable[[Sequence[str]], Tensor],
) -> BranchPlan:
    """Return the one branch.

    Args:
        source: prompt of the image, without brackets.
        edits: from `multi_edits.edits.locate_edits`.
        groups: tell the kind of each edit; without a local one there is no control.
        regions: of every edit that is made, bool, (H, W) of the latents.
        tokenizer: of the text encoder.
        encode: see `multi_edits.planning.plan_branches`.
    """
    group = one_group(groups)
    plan = plan_branches(source, edits, [group], tokenizer=tokenizer, encode=encode, masks=regions)
    rigid = {edit for each in groups if each.kind == "rigid" for edit in each.edits}
    branch = replace(
        plan.branches[0],
        mix=None if group.kind == "global" else _mix(source, edits, rigid, tokenizer),
        strength=_strength(edits, group.edits, regions),
    )
    return BranchPlan(plan.prompts, (branch,))


def edit_regions(
    aspects: Sequence[Aspect], threshold: float, size: tuple[int, int]
) -> dict[int, Tensor]:
    """Return for each edit where the map of its old or new phrase is above the threshold.

    Args:
        aspects: with the maps of the edits; one of the whole image has all of it.
        threshold: as a share of the map's peak, in [0, 1].
        size: height H and width W of the latents.

    Returns:
        bool, (H, W) each.
    """
    regions: dict[int, Tensor] = {}
    for aspect in aspects:
        maps = [levels for levels in (aspect.source, aspect.target) if levels is not None]
        if aspect.whole_image:
            region = torch.ones(size, dtype=torch.bool)
        else:
            seen = torch.stack([levels >= threshold * levels.amax() for levels in maps]).any(0)
            region = latent_mask(seen, size).cpu()
        regions |= dict.fromkeys(aspect.edits, region)
    return regions


def _mix(source: str, edits: Sequence[Edit], rigid: set[int], tokenizer: Any) -> AttentionMix:
    states = apply_edits(source, edits, ()), all_made(source, edits)
    before, after = (tokenize(state.text, tokenizer) for state in states)
    partner = list(align(before.ids, after.ids))
    for number, edit in enumerate(edits):
        if edit.strength == 0:
            continue
        new = after.tokens_of(*states[1].places[number]) if edit.new else []
        old = before.tokens_of(*states[0].places[number]) if edit.old else []
        follows = number in rigid and len(old) == len(new)
        for k, token in enumerate(new):
            partner[token] = old[k] if follows else -1
    return refine_mix(partner, after.length)


def _strength(
    edits: Sequence[Edit], made: Sequence[int], regions: Mapping[int, Tensor]
) -> float | Tensor:
    """Return the strength at each place, (H, W): where regions overlap their mean, outside 0."""
    strengths = [edits[k].strength for k in made]
    if len(set(strengths)) == 1:
        return strengths[0]
    where = torch.stack([regions[k] for k in made]).float()
    covering = where.sum(0).clamp_min(1)
    return (where * torch.tensor(strengths).view(-1, 1, 1)).sum(0) / covering
