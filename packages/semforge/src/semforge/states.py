"""All label vectors that a graph's rules allow (specification 3.2)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

MAX_NODES = 20
_BLOCK = 1 << 16  # candidates looked at together, so that memory does not grow with 2^n


def enumerate_states(
    n: int,
    *,
    subsumption: Iterable[tuple[int, int]] = (),
    exclusion: Iterable[tuple[int, int]] = (),
    any_parent: Iterable[tuple[int, Iterable[int]]] = (),
    any_child: Iterable[tuple[int, Iterable[int]]] = (),
) -> Tensor:
    """Return the legal states in lexicographic order, node 0 most significant.

    Nodes are numbers in [0, n). A candidate is a bit mask, and each rule is two tests of it.

    Args:
        n: number of nodes, in [1, 20].
        subsumption: pairs (a, b): b = 1 needs a = 1.
        exclusion: pairs (a, b): not both are 1.
        any_parent: (node, parents): node = 1 needs at least one of its parents to be 1 (rule R3).
        any_child: (node, children): node = 1 needs at least one of its children to be 1 (R2).

    Returns:
        uint8, shape (M, n), values 0 and 1. Row 0 is all zeros, which no rule forbids.

    Raises:
        ValueError: n is out of range.

    Example:
        >>> enumerate_states(2, subsumption=[(0, 1)])
        tensor([[0, 0],
                [1, 0],
                [1, 1]], dtype=torch.uint8)
    """
    if not 1 <= n <= MAX_NODES:
        raise ValueError(
            f"a graph has 1 to {MAX_NODES} nodes, got {n} (2^{n} candidate states); merge "
            "attributes that always change together, or make one graph per group of attributes"
        )

    def mask(nodes: Iterable[int]) -> int:
        return sum(1 << (n - 1 - node) for node in set(nodes))

    needs = [(mask([b]), mask([a])) for a, b in subsumption]
    needs += [(mask([node]), mask(some)) for node, some in (*any_parent, *any_child)]
    both = [mask(pair) for pair in exclusion]
    legal = []
    with torch.device("cpu"):
        for start in range(0, 1 << n, _BLOCK):
            codes = torch.arange(start, min(start + _BLOCK, 1 << n), dtype=torch.int32)
            for node, one_of in needs:
                codes = codes[(codes & node == 0) | (codes & one_of != 0)]
            for pair in both:
                codes = codes[codes & pair != pair]
            shifts = torch.arange(n - 1, -1, -1, dtype=torch.int32)
            legal.append((codes[:, None] >> shifts & 1).to(torch.uint8))
    return torch.cat(legal)
