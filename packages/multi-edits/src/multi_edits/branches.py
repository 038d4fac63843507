"""Branches, how they are sampled, and what each takes from the branch before (spec 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from multi_edits.alignment import AttentionMix
from multi_edits.attention import CrossControl
from multi_edits.grouping import Kind

Sharing = Literal["structure", "content"]
Compat = Literal["paper", "reference"]


@dataclass(frozen=True)
class SamplingSettings:
    """How branches are sampled.

    Attributes:
        guidance: classifier-free guidance of the branches; paper: 4.
        source_guidance: of the source and the layout streams; paper: 1.
        cross_ratio: share of the steps, from the first, with cross-attention control, in [0, 1].
        self_ratio: share with self-attention control, in [0, 1].
        edit_threshold: threshold of edited regions, in [0, 1].
        thresh_keep: threshold of regions of kept words, in [0, 1].
        chain_start: share of the steps after which a branch follows the one before, not the source.
        gather_masks: whether a branch may also change what those before it did (paper alg. 2), or
            its own region only, where the others are as they left them.
        layout: whether each branch has a layout stream, which shows outside its edit; without it
            the branch before does. None: only with compat="reference".
        map_level: how often the latents' side is halved where attention maps are kept; the level
            closest to a quarter of the side if not given.
        compat: "paper", or "reference" for the published code's chain: branch n follows branch
            n + 1 and the last one the source, from the eighth step on, always with the source's
            predicted noise, and only latents are blended.
    """

    guidance: float = 4.0
    source_guidance: float = 1.0
    cross_ratio: float = 0.7
    self_ratio: float = 0.7
    edit_threshold: float = 0.5
    thresh_keep: float = 0.8
    chain_start: float = 7 / 15
    gather_masks: bool = True
    layout: bool | None = None
    map_level: int | None = None
    compat: Compat = "paper"

    def __post_init__(self) -> None:
        shares = ("cross_ratio", "self_ratio", "edit_threshold", "thresh_keep", "chain_start")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("guidance", "source_guidance"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a number >= 0, got {getattr(self, name)}")
        if self.compat not in ("paper", "reference"):
            raise ValueError(f"compat must be paper or reference, got {self.compat}")
        if self.compat == "reference" and self.layout is False:
            raise ValueError("compat reference needs the layout streams; leave layout out")

    @property
    def has_layout(self) -> bool:
        """Whether each branch has a layout stream."""
        return self.compat == "reference" if self.layout is None else self.layout

    @property
    def guided(self) -> bool:
        """Whether an unconditional half is needed."""
        return self.guidance != 1 or self.source_guidance != 1

    def first_chained(self, steps: int) -> int:
        """Return the first step, from 0, at which a branch follows the one before."""
        return 7 if self.compat == "reference" else round(self.chain_start * steps)


@dataclass(frozen=True)
class Branch:
    """One branch: what it changes against the branch before, and how it holds on to it.

    Attributes:
        kind: a global branch is blended only if it has a mask.
        mix: cross-attention control; None for none.
        edit_tokens: tokens of its prompt that are new, bool, (L,).
        old_tokens: tokens of the prompt before that go, bool, (L,).
        keep_tokens: tokens of its prompt whose regions stay as before, bool, (L,); None for none.
        sharing: what self-attention takes from the branch before: queries and keys ("structure",
            for rigid edits), keys and values ("content", for non-rigid ones), or None.
        strength: factor on the change of predicted noise against the branch before, >= 0; a
            number, or one for each place of the latents, float32, (H, W).
        mask: where it may change the image, bool, (H, W) of the latents; from the maps if None.
    """

    kind: Kind
    mix: AttentionMix | None
    edit_tokens: Tensor
    old_tokens: Tensor
    keep_tokens: Tensor | None = None
    sharing: Sharing | None = None
    strength: float | Tensor = 1.0
    mask: Tensor | None = None


def row_prompts(branches: int, *, layout: bool) -> list[int]:
    """Return the prompt of each row: 0 is the source's, n that of branch n.

    Args:
        branches: N.
        layout: whether there are layout streams; that of branch n has the prompt n - 1.

    Example:
        >>> row_prompts(2, layout=True)
        [0, 1, 2, 0, 1]
    """
    return [*range(branches + 1), *(range(branches) if layout else ())]


def self_attention_rows(
    sharing: Sequence[Sharing | None], *, early: bool, layout: bool
) -> tuple[list[int], list[int], list[int]] | None:
    """Return whose queries, keys and values each row uses in self-attention (spec 3.4).

    Early, "structure" takes queries and keys of the branch before and "content" its keys and
    values, and the layout stream all three; late, only the layout stream is bound, to its branch's
    queries and to keys and values of the branch before.

    Args:
        sharing: for each branch.
        early: whether (step + 1) / steps is below the ratio.
        layout: whether there are layout streams.

    Returns:
        Three lists of rows, or None if nothing is shared.
    """
    count = len(sharing)
    query = list(range(1 + count * (2 if layout else 1)))
    key, value = list(query), list(query)
    for n, what in enumerate(sharing, 1):
        if what is None:
            continue
        before, stream = n - 1, n + count
        if early:
            key[n] = before
            if what == "structure":
                query[n] = before
            else:
                value[n] = before
        if layout:
            query[stream], key[stream], value[stream] = before if early else n, before, before
    own = list(range(len(query)))
    return None if query == key == value == own else (query, key, value)


def cross_control(
    branches: Sequence[Branch], offset: int, device: torch.device
) -> CrossControl | None:
    """Return the control of cross-attention of each branch by the one before.

    Args:
        branches: those without a mix are left alone.
        offset: first row of the conditional half.
        device: of the network.
    """
    mixes = [(n, branch.mix) for n, branch in enumerate(branches, 1) if branch.mix is not None]
    if not mixes:
        return None
    rows = torch.tensor([offset + n for n, _ in mixes], device=device)
    matrix = torch.stack([mix.matrix for _, mix in mixes]).to(device)
    own = torch.stack([mix.own for _, mix in mixes]).to(device)
    return CrossControl(rows, rows - 1, matrix, own)
