"""The CIFAR networks distillation papers compare on, named as in the public teacher checkpoints.

Every class is imported on first use. A network returns logits (B, num_classes) and its
``forward_features`` the pooled features (B, D) in front of the classifier.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rld_distill.models.mobilenet import MobileNetV2
    from rld_distill.models.resnet import CifarResNet
    from rld_distill.models.resnet64 import ResNet64
    from rld_distill.models.shufflenet import ShuffleNetV1, ShuffleNetV2
    from rld_distill.models.vgg import VGG
    from rld_distill.models.wrn import WideResNet

__all__ = [
    "VGG",
    "CifarResNet",
    "MobileNetV2",
    "ResNet64",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "WideResNet",
]

_FILES = {
    "VGG": "vgg",
    "CifarResNet": "resnet",
    "MobileNetV2": "mobilenet",
    "ResNet64": "resnet64",
    "ShuffleNetV1": "shufflenet",
    "ShuffleNetV2": "shufflenet",
    "WideResNet": "wrn",
}


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
