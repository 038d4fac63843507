"""Networks by name: NL-RAN, its ablations, and what it is compared with, behind one interface."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from papercommons.errors import DataError, nearest

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("papercommons")
Variant = Literal["tiny", "base", "large"]

_ABLATIONS: dict[str, dict[str, Any]] = {
    "nlran": {},
    "ran3d": {"non_local_after": ()},
    "nlresnet3d": {"attention": "none"},
    "plain3d": {"attention": "none", "non_local_after": ()},
    "cbam3d": {"attention": "cbam", "non_local_after": ()},
}
VARIED = tuple(_ABLATIONS)  # have a variant
_RESNETS = {"resnet3d": 18, "resnet3d34": 34, "resnet3d50": 50}
NETWORKS = (*_ABLATIONS, *_RESNETS, "densenet121", "covnet")


def check_name(name: str) -> None:
    """Raise ValueError if there is no network called `name`, with the nearest names."""
    if name not in NETWORKS:
        raise ValueError(
            f"unknown network {name!r}{nearest(name, NETWORKS)} (there are {', '.join(NETWORKS)})"
        )


def create_network(
    name: str = "nlran", num_classes: int = 3, *, variant: Variant = "base", **options: Any
) -> nn.Module:
    """Return a network with ``forward``, ``features``, ``classify`` and a linear ``head``.

    Args:
        name: nlran; without its non-local block (ran3d), attention (nlresnet3d) or both (plain3d);
            with CBAM gates instead (cbam3d); resnet3d (18), resnet3d34, resnet3d50; densenet121
            (needs MONAI); covnet.
        num_classes: >= 1.
        variant: size of nlran and its ablations; the others have one size.
        **options: of `NLRAN`, or of the other network's class.

    Raises:
        ValueError: no such network or variant.
        DataError: densenet121 without MONAI.
    """
    check_name(name)
    if name in _RESNETS:
        from nlran.resnet3d import ResNet3d

        return ResNet3d(_RESNETS[name], num_classes, **options)
    if name == "densenet121":
        from nlran.densenet import DenseNet3d

        return DenseNet3d(num_classes, **options)
    if name == "covnet":
        from nlran.covnet import COVNet

        return COVNet(num_classes, **options)
    from nlran import model

    sizes = {"tiny": model.nlran_tiny, "base": model.nlran_base, "large": model.nlran_large}
    if variant not in sizes:
        raise ValueError(f"variant must be tiny, base or large, got {variant}")
    return sizes[variant](num_classes, **(_ABLATIONS[name] | options))


def check_grid(network: Any, size: Sequence[int], batch_size: int, scans: int) -> None:
    """Check that batch norm has something to average, and warn where a mask has nothing to halve.

    Args:
        network: of `create_network`.
        size: depth, height, width of its input; depth 0 (covnet) is not checked.
        batch_size: scans per step.
        scans: training scans.

    Raises:
        DataError: the last feature map has one voxel and a batch has one scan, under batch norm.
    """
    import torch
    from torch import nn

    from nlran.attention import AttentionModule3d

    if not size[0]:
        return
    training = network.training
    with torch.no_grad():
        features = network.eval().features(torch.zeros(1, 1, *size))
    network.train(training)
    depth = next((p.depth for p in network.modules() if isinstance(p, AttentionModule3d)), 0)
    if features.mask is not None and min(features.mask.shape[2:]) < 2**depth:
        log.warning(
            "the first mask has %d x %d x %d voxels, too few to halve %d times; a larger --size "
            "would make use of it",
            *(*features.mask.shape[2:], depth),
        )
    normed = any(isinstance(part, nn.BatchNorm3d) for part in network.modules())
    alone = batch_size == 1 or scans % batch_size == 1
    if normed and alone and features.last[0, 0].numel() == 1:
        raise DataError(
            f"a batch of one scan leaves batch norm nothing to average: at size {list(size)} the "
            "last feature map is one voxel; pass --norm group, a larger --size or another "
            "--batch-size"
        )
