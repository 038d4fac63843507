"""Which kind of edit each aspect needs, and which share a branch (paper sec. 4.2, app. A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["rigid", "non-rigid", "global"]
Order = Literal["rigid-first", "non-rigid-first"]

MAP_SIDE = 256
THRESHOLD = 100  # of 255, for areas
THRESHOLDS = tuple(range(90, 110))  # for overlaps


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
class Aspect:
    """An object with the edits of its attributes, or a single edit, and where it is seen.

    Attributes:
        edits: indices into the list of edits.
        source: map of the old phrase, float or uint8 in [0, 255], (H, W); None if added.
        target: map of the new phrase, likewise; None if deleted.
        strength: of the edits; aspects of different strength never share a branch.
        whole_image: whether the edits are known to belong to no object, and so are global.
    """

    edits: tuple[int, ...]
    source: Tensor | None
    target: Tensor | None
    strength: float = 1.0
    whole_image: bool = False

    def __post_init__(self) -> None:
        if self.source is None and self.target is None and not self.whole_image:
            raise ValueError("an aspect needs a map of its old phrase, of its new one or both")


@dataclass(frozen=True)
class AspectGroup:
    """Edits that share one branch.

    Attributes:
        kind: decides how attention is controlled.
        edits: indices into the list of edits.
        overlap: least overlap of old and new map among its aspects, in [0, 1]; None where an
            aspect is added, deleted or known to be global.
        area: largest share of the image that one of its new maps covers, in [0, 1].
        strength: of all its edits.
    """

    kind: Kind
    edits: tuple[int, ...]
    overlap: float | None = None
    area: float = 0.0
    strength: float = 1.0


def to_gray_levels(maps: Tensor, *, side: int = MAP_SIDE) -> Tensor:
    """Return attention maps scaled by their own maximum to 0..255 and enlarged (bicubic).

    Args:
        maps: >= 0, float, (K, h, w).
        side: of the result.

    Returns:
        float32, (K, side, side), values in [0, 255].
    """
    peak = maps.float().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    large = F.interpolate(
        (255 * maps.float() / peak)[None], size=(side, side), mode="bicubic", antialias=True
    )
    return large[0].clamp(0, 255)


def overlap_coefficient(first: Tensor, second: Tensor) -> float:
    """Return the mean over thresholds 90..109 of intersection / smaller area, the paper's phi.

    Where an area is empty, the overlap at that threshold is 0.

    Args:
        first: map in [0, 255], float or uint8, (H, W).
        second: likewise, of the same size.
    """
    levels = torch.tensor(THRESHOLDS, device=first.device).view(-1, 1, 1)
    a, b = first[None] > levels, second[None] > levels
    shared = (a & b).sum((1, 2)).double()
    smaller = torch.minimum(a.sum((1, 2)), b.sum((1, 2)))
    return float((shared / smaller.clamp_min(1)).mean())


def covered_area(levels: Tensor) -> float:
    """Return the share of a map in [0, 255] above 100, in [0, 1]."""
    return float((levels > THRESHOLD).double().mean())


def aspect_kind(aspect: Aspect, *, theta: float = 0.9, beta: float = 0.8) -> Kind:
    """Return the kind of edit an aspect needs (paper eq. 3 in the form of appendix D).

    Global if its new map covers at least `beta` of the image; else non-rigid if it is added or
    deleted, or if old and new map overlap by less than `theta`; else rigid.

    Args:
        aspect: with its maps.
        theta: least overlap of a rigid edit, in [0, 1]; paper: 0.9.
        beta: least covered share of a global edit, in [0, 1]; paper: 0.8.
    """
    if aspect.whole_image:
        return "global"
    if aspect.target is not None and covered_area(aspect.target) >= beta:
        return "global"
    if aspect.source is None or aspect.target is None:
        return "non-rigid"
    return "rigid" if overlap_coefficient(aspect.source, aspect.target) >= theta else "non-rigid"


def cluster_maps(maps: Sequence[Tensor], threshold: float) -> list[list[int]]:
    """Return indices of maps that belong together: each joins the first one it overlaps enough.

    Args:
        maps: in [0, 255], (H, W) each.
        threshold: least overlap coefficient; at 0, any overlap will do.
    """
    left, clusters = list(range(len(maps))), list[list[int]]()
    while left:
        first, *others = left
        overlaps = {k: overlap_coefficient(maps[first], maps[k]) for k in others}
        joined = [k for k in others if overlaps[k] > 0 and overlaps[k] >= threshold]
        clusters.append([first, *joined])
        left = [k for k in others if k not in joined]
    return clusters


def group_aspects(
    aspects: Sequence[Aspect],
    *,
    theta: float = 0.9,
    beta: float = 0.8,
    group_threshold: float = 0.9,
    order: Order = "rigid-first",
) -> list[AspectGroup]:
    """Return the groups of edits, one for each branch, in the order of the branches.

    Aspects of the same kind and strength whose maps overlap share a branch; all global ones of the
    same strength form one, at the end.

    Args:
        aspects: what is edited, with cross-attention maps of old and new phrases.
        theta: see `aspect_kind`.
        beta: see `aspect_kind`.
        group_threshold: least overlap of two new maps of one group, in [0, 1]; 0 groups on any
            overlap, as the published code does.
        order: which kind comes first; the published code: rigid first, the appendix: the other.

    Raises:
        ValueError: a number or the order is not as said.
    """
    if not all(0 <= value <= 1 for value in (theta, beta, group_threshold)):
        raise ValueError(
            f"theta, beta and group_threshold must be in [0, 1], got {theta}, {beta} and "
            f"{group_threshold}"
        )
    if order not in ("rigid-first", "non-rigid-first"):
        raise ValueError(f"order must be rigid-first or non-rigid-first, got {order}")
    kinds = [aspect_kind(aspect, theta=theta, beta=beta) for aspect in aspects]
    local: tuple[Kind, ...] = ("rigid", "non-rigid")
    groups = []
    for kind in (*(local if order == "rigid-first" else local[::-1]), "global"):
        for strength in dict.fromkeys(aspect.strength for aspect in aspects):
            members = [
                aspect
                for aspect, own in zip(aspects, kinds, strict=True)
                if own == kind and aspect.strength == strength
            ]
            clusters = [list(range(len(members)))] if members else []
            if kind != "global":
                maps = [a.source if a.target is None else a.target for a in members]
                clusters = cluster_maps([m for m in maps if m is not None], group_threshold)
            groups += [_group(kind, [members[k] for k in own]) for own in clusters]
    return groups


def one_group(groups: Sequence[AspectGroup]) -> AspectGroup:
    """Return the group of all edits, for a single branch.

    It is global if all groups are, else non-rigid if any is, else rigid; its strength is the mean
    over the edits.

    Args:
        groups: what the edits would be apart, at least one.
    """
    kinds = {group.kind for group in groups}
    local: Kind = "non-rigid" if "non-rigid" in kinds else "rigid"
    overlaps = [group.overlap for group in groups if group.overlap is not None]
    edits = [(edit, group.strength) for group in groups for edit in group.edits]
    return AspectGroup(
        "global" if kinds == {"global"} else local,
        tuple(sorted(edit for edit, _ in edits)),
        min(overlaps, default=None),
        max(group.area for group in groups),
        sum(strength for _, strength in edits) / len(edits),
    )


def _group(kind: Kind, members: Sequence[Aspect]) -> AspectGroup:
    pairs = [(a.source, a.target) for a in members]
    overlaps = [
        overlap_coefficient(old, new) for old, new in pairs if old is not None and new is not None
    ]
    areas = [covered_area(new) for _, new in pairs if new is not None]
    return AspectGroup(
        kind,
        tuple(sorted(k for a in members for k in a.edits)),
        min(overlaps, default=None),
        max(areas, default=0.0),
        members[0].strength,
    )
