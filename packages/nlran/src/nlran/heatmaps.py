"""Where a network's features respond: maps from one forward pass, and their place in the scan.

``mask`` is the literal reading of the paper (the first attention module's mask), ``mask-trunk`` the
default. ``trunk``, ``gradcam-stage1`` and ``random`` are controls: without them "attention is
better" cannot be told from "a fine grid is better". No map is a proof of what a decision rests on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nlran.features import Features, Place
from nlran.non_local import NonLocalBlock3d

HeatMap = Literal["mask", "mask-trunk", "trunk", "cam", "gradcam", "gradcam-stage1", "nonlocal"]
HEAT_MAPS: tuple[HeatMap, ...] = (
    *("mask", "mask-trunk", "trunk", "cam", "gradcam", "gradcam-stage1", "nonlocal"),
)
_NEEDS = {
    "mask": "mask",
    "mask-trunk": "mask",
    "trunk": "trunk",
    "gradcam-stage1": "stage1",
    "nonlocal": "non_local",
}


def available_maps(features: Features) -> list[HeatMap]:
    """Return the maps that a network with these feature maps can show."""
    return [k for k in HEAT_MAPS if k not in _NEEDS or getattr(features, _NEEDS[k]) is not None]


def class_activation(last: Tensor, logit: Tensor) -> Tensor:
    """Return the class activation map: N sum_k F_k(p) dlogit/dF_k(p), for N positions.

    Behind global average pooling and a linear layer with weights w this is sum_k w_k F_k(p) (Zhou
    et al. 2016). Its mean over positions plus the bias is the logit.

    Args:
        last: the last feature map F, float, shape (B, C, d, h, w), on the graph of `logit`.
        logit: of each scan's class, shape (B,).

    Returns:
        Shape (B, d, h, w).
    """
    (gradient,) = torch.autograd.grad(logit.sum(), last, retain_graph=True)
    return (last.detach() * gradient).sum(1) * last[0, 0].numel()


def grad_cam(features: Tensor, logit: Tensor) -> Tensor:
    """Return Grad-CAM (Selvaraju et al. 2017): ReLU(sum_k a_k F_k), a_k = mean_p dlogit/dF_k(p).

    Args:
        features: F, float, shape (B, C, d, h, w), on the graph of `logit`.
        logit: of each scan's class, shape (B,).

    Returns:
        Shape (B, d, h, w), >= 0.
    """
    (gradient,) = torch.autograd.grad(logit.sum(), features, retain_graph=True)
    alpha = gradient.mean((2, 3, 4))
    return torch.einsum("bk,bk...->b...", alpha, features.detach()).relu()


class Map(NamedTuple):
    """A heat map on its own grid, not yet scaled.

    Attributes:
        values: float32, shape (B, d, h, w).
        place: where they lie in the network's input.
    """

    values: Tensor
    place: Place


def heat_maps(
    network: Any,
    volumes: Tensor,
    kinds: Sequence[HeatMap] | None = None,
    *,
    target: Tensor | None = None,
    slices: Tensor | None = None,
) -> tuple[Tensor, dict[HeatMap, Map]]:
    """Return the logits and the chosen maps.

    One forward pass serves all; only ``gradcam-stage1`` goes back through the network.

    Args:
        network: see `nlran.networks.create_network`, in evaluation mode.
        volumes: scans in [0, 1], float, shape (B, 1, D, H, W).
        kinds: names of maps; None: all that the network has.
        target: class that cam and gradcam explain, int64, shape (B,); the likeliest if None.
        slices: for covnet, slices of each scan, int64, shape (B,).

    Returns:
        Logits float32 (B, num_classes), and the maps by name.

    Raises:
        ValueError: the network has no such map.
    """
    given = () if slices is None else (slices,)
    back = kinds is None or "gradcam-stage1" in kinds
    with torch.inference_mode(False), torch.set_grad_enabled(back):
        # a copy: what was made in inference mode cannot be differentiated
        features: Features = network.features(volumes.clone().requires_grad_(back), *given)
        known = available_maps(features)
        kinds = known if kinds is None else kinds
        if odd := [kind for kind in kinds if kind not in known]:
            raise ValueError(f"this network has no map {odd[0]}; it has {', '.join(known)}")
        if not back:
            features = features._replace(last=features.last.detach().requires_grad_())
        with torch.enable_grad():
            logits: Tensor = network.classify(features.last, *given)
            chosen = logits.detach().argmax(1) if target is None else target
            logit = logits.gather(1, chosen[:, None])[:, 0]
            maps = {kind: _map(network, features, kind, logit) for kind in kinds}
    return logits.detach().float(), {
        kind: Map(values.detach().float(), _place(features, kind)) for kind, values in maps.items()
    }


def _map(network: nn.Module, features: Features, kind: HeatMap, logit: Tensor) -> Tensor:
    last, stage1, mask, trunk, non_local = features[:5]
    if kind == "cam":
        return class_activation(last, logit)
    if kind == "gradcam":
        return grad_cam(last, logit)
    if kind == "gradcam-stage1":
        assert stage1 is not None
        return grad_cam(stage1, logit)
    if kind == "nonlocal":
        assert non_local is not None
        block = next(part for part in network.modules() if isinstance(part, NonLocalBlock3d))
        return block.attention_received(non_local)
    assert trunk is not None
    if kind == "trunk":
        return trunk.abs().mean(1)
    assert mask is not None
    return mask.mean(1) if kind == "mask" else (mask * trunk).abs().mean(1)


def _place(features: Features, kind: HeatMap) -> Place:
    if kind in ("cam", "gradcam"):
        return features.last_place
    return features.non_local_place if kind == "nonlocal" else features.stage1_place


def to_input_grid(heat: Map, size: Sequence[int], *, scale: bool = True) -> Tensor:
    """Return maps on the grid of the network's input, by linear interpolation.

    A value stands in the middle of what it sees, which for symmetric padding is stride times its
    number (and not the middle of a block). Beyond the first and last centre their values hold.

    Args:
        heat: the maps.
        size: D, H, W of the input.
        scale: bring each scan's values to 0..1 (`scale_maps`).

    Returns:
        float32, shape (B, D, H, W).
    """
    maps = heat.values
    for axis, (length, stride, first) in enumerate(zip(size, *heat.place, strict=True), 1):
        count = maps.shape[axis]
        place = (torch.arange(length, device=maps.device) - first) / stride
        place = place.clamp(0, count - 1)
        low = place.floor().long()
        share = (place - low).view([-1 if a == axis else 1 for a in range(4)]).to(maps.dtype)
        high = (low + 1).clamp(max=count - 1)
        maps = torch.lerp(maps.index_select(axis, low), maps.index_select(axis, high), share)
    return scale_maps(maps) if scale else maps


def scale_maps(maps: Tensor) -> Tensor:
    """Return each scan's map brought to 0..1 by its extremes; a constant map becomes zeros.

    Args:
        maps: float, shape (B, ...).
    """
    flat = maps.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    span = torch.where(high > low, high - low, torch.inf)
    shape = [-1] + [1] * (maps.ndim - 1)
    return (maps - low.view(shape)) / span.view(shape)
