"""From edits and prompts to aspects and branches: which tokens, which control, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multi_edits.alignment import AttentionMix, align, link_similar, refine_mix, replace_mix
from multi_edits.branches import Branch, Compat, Sharing
from multi_edits.edits import Edit, EditedPrompt, apply_edits
from multi_edits.grouping import Aspect, AspectGroup, Kind, to_gray_levels
from multi_edits.words import TokenizedPrompt, tokenize

_SHARING: dict[Kind, Sharing | None] = {
    "rigid": "structure",
    "non-rigid": "content",
    "global": None,
}


@dataclass(frozen=True)
class BranchPlan:
    """The branches of some groups of edits.

    Attributes:
        prompts: of the source and of each branch, all edits of earlier branches included.
        branches: for `multi_edits.sampling.sample_branches`.
    """

    prompts: tuple[str, ...]
    branches: tuple[Branch, ...]


def plan_branches(
    source: str,
    edits: Sequence[Edit],
    groups: Sequence[AspectGroup],
    *,
    tokenizer: Any,
    encode: Callable[[Sequence[str]], Tensor],
    masks: Mapping[int, Tensor] | None = None,
    compat: Compat = "paper",
) -> BranchPlan:
    """Return one branch for each group, with prompts that gather the edits.

    Args:
        source: prompt of the image, without brackets.
        edits: from `multi_edits.edits.locate_edits`.
        groups: in the order of the branches.
        tokenizer: of the text encoder.
        encode: prompts -> encoder states, (K, L, D), for tokens that no equal token matches.
        masks: edit -> where it may change the image, bool, (H, W) of the latents; a branch whose
            edits all have one uses their union.
        compat: with "reference" similarity and sharing are those of the published notebook, which
            leaves self-attention of the first two branches alone.
    """
    made: set[int] = set()
    states = [apply_edits(source, edits, made)]
    for group in groups:
        made |= set(group.edits)
        states.append(apply_edits(source, edits, made))
    prompts = tuple(state.text for state in states)
    tokens = [tokenize(prompt, tokenizer) for prompt in prompts]
    encoded = encode(prompts)
    branches = []
    for n, group in enumerate(groups, 1):
        new = [
            t
            for e in group.edits
            if edits[e].new
            for t in tokens[n].tokens_of(*states[n].places[e])
        ]
        old = [
            t
            for e in group.edits
            if edits[e].old
            for t in tokens[n - 1].tokens_of(*states[n - 1].places[e])
        ]
        mix = _mix(group.kind, tokens[n - 1], tokens[n], encoded[n - 1], encoded[n], compat)
        sharing = _SHARING[group.kind]
        if compat == "reference":
            sharing = "structure" if n > 2 else None
        branches.append(
            Branch(
                group.kind,
                mix,
                _marked(new, tokens[n].length),
                _marked(old, tokens[n].length),
                sharing=sharing,
                strength=group.strength,
                mask=_union(masks or {}, group.edits),
            )
        )
    return BranchPlan(prompts, tuple(branches))


def _marked(tokens: Sequence[int], length: int) -> Tensor:
    marked = torch.zeros(length, dtype=torch.bool)
    marked[list(tokens)] = True
    return marked


def _union(masks: Mapping[int, Tensor], edits: Sequence[int]) -> Tensor | None:
    if not all(edit in masks for edit in edits):
        return None
    return torch.stack([masks[edit] for edit in edits]).any(0)


def _mix(
    kind: Kind,
    before: TokenizedPrompt,
    after: TokenizedPrompt,
    before_states: Tensor,
    after_states: Tensor,
    compat: Compat,
) -> AttentionMix | None:
    """Return the control of cross-attention: none, word by word, or by aligned tokens."""
    if kind == "global":
        return None
    if kind == "rigid" and len(before.words) == len(after.words):
        return replace_mix(before, after)
    partner = align(before.ids, after.ids)
    linked = link_similar(partner, before_states, after_states, compat=compat == "reference")
    return refine_mix(linked, after.length)


def unit_edits(edits: Sequence[Edit]) -> list[tuple[int, ...]]:
    """Return edits that are typed together: those of one object with equal strength.

    Args:
        edits: an edit of a known object joins the others of it, any other stays alone; one of
            strength 0 is left out.
    """
    units: dict[Any, list[int]] = {}
    for k, edit in enumerate(edits):
        if edit.strength > 0:
            units.setdefault((edit.object, edit.strength) if edit.object else k, []).append(k)
    return [tuple(unit) for unit in units.values()]


def all_made(source: str, edits: Sequence[Edit]) -> EditedPrompt:
    """Return the prompt with all edits made but those of strength 0.

    Args:
        source: prompt of the image.
        edits: from `multi_edits.edits.locate_edits`.
    """
    return apply_edits(source, edits, [k for k, edit in enumerate(edits) if edit.strength > 0])


def find_aspects(
    source: str,
    edits: Sequence[Edit],
    maps: Tensor,
    *,
    tokenizer: Any,
    map_size: tuple[int, int],
) -> list[Aspect]:
    """Return the aspects of the edits with their maps.

    A phrase's map is the mean of its tokens' maps, each scaled to 0..255. An object is seen where
    its own name is, its attributes' phrases count only if the name is not edited.

    Args:
        source: prompt of the image.
        edits: from `multi_edits.edits.locate_edits`.
        maps: mean cross-attention with the source prompt and with `all_made`'s, (2, P, L).
        tokenizer: of the text encoder.
        map_size: height and width of the maps.
    """
    states = apply_edits(source, edits, ()), all_made(source, edits)
    tokens = [tokenize(state.text, tokenizer) for state in states]

    def seen(which: int, members: Sequence[int]) -> Tensor | None:
        places = [states[which].places[e] for e in members]
        chosen = [t for first, count in places for t in tokens[which].tokens_of(first, count)]
        if not chosen:
            return None
        return to_gray_levels(maps[which].T[chosen].unflatten(1, map_size)).mean(0)

    aspects = []
    for unit in unit_edits(edits):
        first = edits[unit[0]]
        name = set((first.object or "").split())
        named = [e for e in unit if name & set(edits[e].name.split())] or list(unit)
        aspects.append(
            Aspect(unit, seen(0, named), seen(1, named), first.strength, first.object == "")
        )
    return aspects
