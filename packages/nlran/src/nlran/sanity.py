"""Whether a heat map has to do with what the network learnt, and with what its answer rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from nlran.networks import create_network


def untrained_like(config: Mapping[str, Any], seed: int = 0) -> Any:
    """Return a new network of the kind that a configuration names, in evaluation mode.

    A map that looks the same on it shows the scan, not what was learnt (Adebayo et al. 2018).

    Args:
        config: of `nlran.saved.load_network`.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = create_network(config["model"], len(config["classes"]), **config["options"])
    return network.eval()


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Return Spearman's rank correlation of two maps; NaN if one is constant.

    Args:
        a: any shape.
        b: the same shape.
    """
    from scipy.stats import spearmanr

    first, second = np.ravel(a), np.ravel(b)
    if np.ptp(first) == 0 or np.ptp(second) == 0:  # of which scipy warns
        return np.nan
    return float(spearmanr(first, second).statistic)


def deletion_insertion(
    network: Any, volume: Tensor, heat: Tensor, target: int, *, steps: int = 10, chunk: int = 4
) -> tuple[float, float]:
    """Return the areas under the deletion and insertion curves (Petsiuk et al. 2018).

    Voxels go in the order of their heat, ties in the order of the scan; what is taken away shows
    the scan blurred over 9 voxels. A map that names what the answer rests on has a small deletion
    and a large insertion area; compare with a random map.

    Args:
        network: in evaluation mode.
        volume: what it sees, float in [0, 1], shape (1, 1, D, H, W).
        heat: shape (D, H, W).
        target: class whose probability is followed.
        steps: parts the voxels are taken in, >= 1.
        chunk: volumes the network sees at once.

    Returns:
        Mean probability over the deletion and over the insertion steps, each in [0, 1].

    Raises:
        ValueError: steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    blurred = volume
    for _ in range(2):
        blurred = F.avg_pool3d(F.pad(blurred, (4,) * 6, mode="replicate"), 9, stride=1)
    order = heat.flatten().argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    rank = rank.view(heat.shape).to(volume.device)
    edges = torch.linspace(0, len(order), steps + 1).round().long().tolist()

    def area(inside: Tensor, outside: Tensor) -> float:
        seen = [torch.where(rank < edge, inside, outside) for edge in edges]
        with torch.no_grad():
            logits = torch.cat(
                [network(torch.cat(seen[i : i + chunk])) for i in range(0, len(seen), chunk)]
            )
        curve = logits.float().softmax(1)[:, target]
        return float(torch.trapezoid(curve) / steps)

    return area(blurred, volume), area(volume, blurred)
