"""Networks that turn face crops into features, by name.

``tiny``; any network of timm, such as ``legacy_xception`` (the paper's Xception) and
``vit_base_patch32_clip_quickgelu_224.openai``; ``open_clip:ViT-B-32-quickgelu`` (image tower).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from papercommons.checkpoint import load_weights, read_state_dict
from papercommons.errors import DataError, missing_library, nearest, reason
from torch import Tensor, nn

Channels = tuple[float, float, float]
HALF: Channels = (0.5, 0.5, 0.5)
CLIP_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Channels = (0.26862954, 0.26130258, 0.27577711)
_TINY_SIZE = 64


class Backbone(nn.Module):
    """A network and what its input must look like.

    Args:
        network: maps normalised RGB (N, 3, S, S) to features (N, dim).
        dim: number of features.
        image_size: S the network is meant for.
        mean: of the channels in [0, 1], subtracted from the input.
        std: what the channels are divided by.
    """

    def __init__(
        self,
        network: nn.Module,
        dim: int,
        *,
        image_size: int,
        mean: Channels = HALF,
        std: Channels = HALF,
    ) -> None:
        super().__init__()
        self.network, self.dim, self.image_size = network, dim, image_size
        self.mean, self.std = mean, std

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float, shape (N, dim)."""
        features: Tensor = self.network(images)
        return features


class TinyNetwork(nn.Sequential):
    """Four 3x3 convolutions for experiments on a CPU; our choice, ``dim`` = 128.

    The first keeps the full resolution, where traces of an edit are.

    Args:
        width: channels of the first convolution; they double three times.
    """

    def __init__(self, width: int = 16) -> None:
        layers: list[nn.Module] = []
        before = 3
        for stage in range(4):
            after = width << stage
            stride = 1 if stage == 0 else 2
            layers += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            before = after
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dim = before


def create_backbone(
    name: str, *, image_size: int | None = None, pretrained: bool | str = False
) -> Backbone:
    """Return a network by name.

    Random weights come from torch's global generator: set its seed first. A CLIP tower of timm
    without a tag is OpenAI's, and such towers keep their projection: ViT-B/32 gives 512 features,
    as in the paper.

    Args:
        name: ``tiny``, a name of timm, or ``open_clip:NAME``.
        image_size: S; None is the size the network was published for, 64 for ``tiny``.
        pretrained: True for the published weights (downloads them unless cached), or the path of a
            weights file of the network, with or without its classifier.

    Raises:
        ValueError: the name is unknown, or the network has no such size or no published weights.
        DataError: the weights file is broken or of another network.
        RuntimeError: the published weights could not be loaded.
    """
    if image_size is not None and not 32 <= image_size <= 1024:
        raise ValueError(f"image_size must be in [32, 1024], got {image_size}")
    if name.startswith("open_clip:"):
        clip = create_open_clip(name, image_size=image_size, pretrained=pretrained)
        mean, std = clip_normalization(clip)
        tower = clip.visual
        if not hasattr(tower, "output_dim"):
            raise ValueError(f"{name}: its image tower does not say its size; take one of CLIP's")
        size = image_size or clip_image_size(clip)
        return Backbone(tower, tower.output_dim, image_size=size, mean=mean, std=std)
    published = pretrained is True
    if name == "tiny":
        if published:
            raise ValueError("tiny has no published weights; give a weights file, or none")
        tiny = TinyNetwork()
        backbone = Backbone(tiny, tiny.dim, image_size=image_size or _TINY_SIZE)
    else:
        backbone = _create_timm(name, image_size, published)
    if isinstance(pretrained, str):
        weights = read_state_dict(Path(pretrained))
        own = backbone.network.state_dict()
        unused = ("fc.", "classifier.", "head.fc.", "head.", "last_linear.")
        kept = {k: v for k, v in weights.items() if k in own or not k.startswith(unused)}
        load_weights(backbone.network, kept, source=pretrained)
    return backbone


def _create_timm(name: str, image_size: int | None, published: bool) -> Backbone:
    import timm
    from timm.data.config import resolve_model_data_config

    if not timm.is_model(name):
        known = ["tiny", *timm.list_models()]
        raise ValueError(
            f"unknown backbone {name!r}{nearest(name, known)} (tiny, a name of timm, or "
            "open_clip:NAME)"
        )
    if "_clip_" in name and timm.list_models(f"{name}.openai", pretrained=True):
        name = f"{name}.openai"  # else timm takes weights that were tuned for other classes
    try:
        config: Any = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # the tag behind the dot
        raise ValueError(f"timm has no weights {name!r}: {reason(error)}") from error
    projects = config is not None and "_clip_" in name and config.num_classes == 512
    options: dict[str, Any] = {"num_classes": 512 if projects else 0}
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    try:
        network = timm.create_model(name, pretrained=published, **options)
    except DataError:
        raise
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{name} at image size {image_size}: {reason(error)}") from error
    except Exception as error:  # downloaders raise a dozen kinds
        raise RuntimeError(
            f"the published weights of {name} could not be loaded ({reason(error)}); they need "
            "the network once, or give a weights file"
        ) from error
    data = resolve_model_data_config(network)
    mean, std = (tuple(float(v) for v in data[key]) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"{name} does not take RGB images")
    features: Any = getattr(network, "head_hidden_size", None) or network.num_features
    dim = 512 if projects else int(features)
    return Backbone(
        network, dim, image_size=image_size or data["input_size"][-1], mean=mean, std=std
    )


def create_open_clip(
    name: str, *, image_size: int | None = None, pretrained: bool | str = False
) -> Any:
    """Return both towers of a network of open_clip (extra ``open-clip``).

    Args:
        name: ``open_clip:NAME``, one of ``open_clip.list_models()``.
        image_size: see `create_backbone`.
        pretrained: True for the ``openai`` weights, or the path of a weights file.

    Raises:
        ValueError: the name is unknown.
        DataError: open_clip is not installed, or the weights file is broken or of another network.
        RuntimeError: the published weights could not be loaded.
    """
    try:
        import open_clip
    except ImportError:
        raise missing_library(name, "open_clip", "semforge[open-clip]") from None
    arch = name.removeprefix("open_clip:")
    known = open_clip.list_models()
    if arch not in known:
        raise ValueError(f"open_clip has no model {arch!r}{nearest(arch, known)}")
    tag = "openai" if pretrained is True else None
    try:
        clip = open_clip.create_model(arch, pretrained=tag, force_image_size=image_size)
    except Exception as error:
        raise RuntimeError(
            f"the published weights of {name} could not be loaded ({reason(error)}); they need "
            "the network once, or give a weights file"
        ) from error
    if isinstance(pretrained, str):
        load_weights(clip, read_state_dict(Path(pretrained)), source=pretrained)
    return clip


def clip_image_size(clip: Any) -> int:
    """Return S of a network with both towers."""
    size = clip.visual.image_size
    return int(size[0] if isinstance(size, tuple | list) else size)


def clip_normalization(clip: Any) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of the channels that its images are normalised with."""
    mean = getattr(clip.visual, "image_mean", None) or CLIP_MEAN
    std = getattr(clip.visual, "image_std", None) or CLIP_STD
    return tuple(mean), tuple(std)
