"""Networks by name: NL-RAN, its ablations, and what it is compared with, behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from papercommons.errors import nearest

if TYPE_CHECKING:
    from torch import nn

Variant = Literal["tiny", "base", "large"]

_ABLATIONS: dict[str, dict[str, Any]] = {
    "nlran": {},
    "ran3d": {"non_local_after": ()},
    "nlresnet3d": {"attention": "none"},
    "plain3d": {"attention": "none", "non_local_after": ()},
    "cbam3d": {"attention": "cbam", "non_local_after": ()},
}
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
