"""Networks by name: the 26 CIFAR networks of the distillation papers, any of timm or torchvision.

A bare name is one of the 26 (`list_models`), ``timm:NAME`` one of timm's and ``torchvision:NAME``
one of torchvision's classifiers. Importing this module and `list_models` need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from papercommons.errors import nearest

if TYPE_CHECKING:
    from torch import nn

_X4 = {"stem": 32, "widths": (64, 128, 256)}

_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {  # name: class in rld_distill.models, arguments
    "resnet8": ("CifarResNet", {"depth": 8}),
    "resnet14": ("CifarResNet", {"depth": 14}),
    "resnet20": ("CifarResNet", {"depth": 20}),
    "resnet32": ("CifarResNet", {"depth": 32}),
    "resnet44": ("CifarResNet", {"depth": 44}),
    "resnet56": ("CifarResNet", {"depth": 56}),
    "resnet110": ("CifarResNet", {"depth": 110}),
    "resnet8x4": ("CifarResNet", {"depth": 8, **_X4}),
    "resnet32x4": ("CifarResNet", {"depth": 32, **_X4}),
    "wrn_16_1": ("WideResNet", {"depth": 16, "width": 1}),
    "wrn_16_2": ("WideResNet", {"depth": 16, "width": 2}),
    "wrn_16_4": ("WideResNet", {"depth": 16, "width": 4}),
    "wrn_28_2": ("WideResNet", {"depth": 28, "width": 2}),
    "wrn_28_4": ("WideResNet", {"depth": 28, "width": 4}),
    "wrn_40_1": ("WideResNet", {"depth": 40, "width": 1}),
    "wrn_40_2": ("WideResNet", {"depth": 40, "width": 2}),
    "vgg8": ("VGG", {"convs": (1, 1, 1, 1, 1)}),
    "vgg11": ("VGG", {"convs": (1, 1, 2, 2, 2)}),
    "vgg13": ("VGG", {"convs": (2, 2, 2, 2, 2)}),
    "vgg16": ("VGG", {"convs": (2, 2, 3, 3, 3)}),
    "vgg19": ("VGG", {"convs": (2, 2, 4, 4, 4)}),
    "MobileNetV2": ("MobileNetV2", {"width": 0.5}),
    "ShuffleV1": ("ShuffleNetV1", {}),
    "ShuffleV2": ("ShuffleNetV2", {}),
    "ResNet18": ("ResNet64", {"block": "basic", "blocks": (2, 2, 2, 2)}),
    "ResNet50": ("ResNet64", {"block": "bottleneck", "blocks": (3, 4, 6, 3)}),
}

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_WITH_SIDE_HEADS = ("googlenet", "inception_v3")  # torchvision: several outputs while training


def list_models() -> list[str]:
    """Return the names of the 26 CIFAR networks, family by family.

    Example:
        >>> list_models()[:3]
        ['resnet8', 'resnet14', 'resnet20']
    """
    return list(_NETWORKS)


def create_model(name: str, num_classes: int, *, pretrained: bool = False) -> nn.Module:
    """Return a new classifier; it maps images (B, 3, H, W) to logits (B, num_classes).

    Random weights come from torch's global generator: set its seed first.

    Args:
        name: one of `list_models`, ``timm:NAME`` or ``torchvision:NAME``.
        num_classes: number of logits, >= 2.
        pretrained: start from the published ImageNet weights (timm and torchvision; downloads
            them unless cached). The last layer is random where they have another class count.

    Raises:
        ValueError: the name is unknown, num_classes < 2, or pretrained is set for one of the 26,
            which have no weights to download.
        RuntimeError: the published weights could not be loaded.

    Example:
        >>> sum(p.numel() for p in create_model("resnet8x4", 100).parameters())
        1233540
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be >= 2, got {num_classes}")
    source, arch = _split(name)
    if not source:
        if pretrained:
            raise ValueError(
                f"{name} has no weights to download; load a checkpoint file, or take "
                "timm:NAME or torchvision:NAME"
            )
        from rld_distill import models

        kind, arguments = _NETWORKS[arch]
        network: nn.Module = getattr(models, kind)(**arguments, num_classes=num_classes)
        return network
    create = _create_timm if source == "timm" else _create_torchvision
    if not pretrained:
        return create(arch, num_classes, pretrained=False)
    try:
        return create(arch, num_classes, pretrained=True)
    except Exception as error:  # the two libraries and their downloaders raise a dozen kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(
            f"the published weights of {name} could not be loaded ({reason}); they need the "
            "network once, or leave pretrained off and load a checkpoint file"
        ) from error


def input_normalization(
    name: str,
) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    """Return the channel means and standard deviations that a model's published weights expect.

    They apply to RGB in [0, 1]. None for the 26 CIFAR networks: they take whatever the data were
    normalised with when they were trained.

    Args:
        name: as for `create_model`.

    Raises:
        ValueError: the name is unknown.
    """
    source, arch = _split(name)
    if not source:
        return None
    if source == "torchvision":
        return _IMAGENET  # of all its classification weights
    import timm

    published = timm.get_pretrained_cfg(arch)
    if published is None:
        return _IMAGENET
    mean, std = (tuple(float(v) for v in values) for values in (published.mean, published.std))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"{name} does not take three-channel images (its means: {mean})")
    return mean, std


def published_classes(name: str) -> int | None:
    """Return how many classes a model's published weights tell apart; None if it has none.

    Args:
        name: as for `create_model`.

    Raises:
        ValueError: the name is unknown.
    """
    source, arch = _split(name)
    if source == "timm":
        import timm

        published = timm.get_pretrained_cfg(arch)
        return None if published is None else int(published.num_classes)
    if source == "torchvision":
        from torchvision import models

        return len(models.get_model_weights(arch).DEFAULT.meta["categories"])
    return None


def _split(name: str) -> tuple[str, str]:
    """Return the source ("", "timm" or "torchvision") and the name there, known to exist."""
    source, colon, arch = name.partition(":")
    if not colon:
        if name not in _NETWORKS:
            raise ValueError(
                f"unknown model {name!r}{nearest(name, _NETWORKS)} "
                f"({len(_NETWORKS)} have bare names; others are timm:NAME, torchvision:NAME)"
            )
        return "", name
    if source == "timm":
        import timm

        if not timm.is_model(arch):
            raise ValueError(f"timm has no model {arch!r}{nearest(arch, timm.list_models())}")
        try:
            timm.get_pretrained_cfg(arch)
        except RuntimeError as error:  # the tag behind the dot
            raise ValueError(f"timm has no weights {arch!r}: {error}") from error
    elif source == "torchvision":
        known = _torchvision_names()
        if arch not in known:
            raise ValueError(f"torchvision has no classifier {arch!r}{nearest(arch, known)}")
    else:
        raise ValueError(f"unknown source in {name!r}; write timm:NAME or torchvision:NAME")
    return source, arch


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))


def _create_timm(arch: str, num_classes: int, *, pretrained: bool) -> nn.Module:
    import timm

    return timm.create_model(arch, pretrained=pretrained, num_classes=num_classes)


def _create_torchvision(arch: str, num_classes: int, *, pretrained: bool) -> nn.Module:
    from torchvision import models

    extra: dict[str, Any] = {}
    if arch in _WITH_SIDE_HEADS:
        # their weights want other means and deviations than ImageNet's: transform_input adapts
        extra = {"aux_logits": False, "init_weights": True, "transform_input": pretrained}
    network: nn.Module = models.get_model(arch, num_classes=num_classes, **extra)
    if pretrained:
        published = models.get_model_weights(arch).DEFAULT.get_state_dict(check_hash=True)
        own = network.state_dict()
        fitting = {k: v for k, v in published.items() if k in own and v.shape == own[k].shape}
        network.load_state_dict(fitting, strict=False)
    return network
