"""Backbones: timm's HRNet at full resolution (section 3.1), or any network of timm that gives maps.

A backbone has ``channels``, those of its four maps, and ``stride``, that of the first map; each
further map is half the size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
from papercommons.errors import DataError, nearest, reason
from timm.models.hrnet import HighResolutionNet
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from defi_net.checkpointing import checkpointed

PAPER = "hrnet_w18_small_v2"
TINY = "hrnet_tiny"
TINY_OPTIONS = {
    "stem_width": 16,
    "planes": 8,
    "bottlenecks": 1,
    "channels": (6, 12, 24, 48),
    "blocks": 1,
    "momentum": 0.1,
}


class HRNet(HighResolutionNet):
    """HRNet whose finest branch keeps the resolution of the image; one module per stage.

    The names and shapes of its weights are those of timm's ``hrnet_w18_small_v2``. Maps of other
    resolutions are fused by bilinear interpolation with aligned corners.

    Args:
        in_channels: of the image.
        stem_width: channels of the stem. Paper: 64.
        planes: inner channels of the bottlenecks of layer1, which gives 4 times as many. Paper: 64.
        bottlenecks: blocks of layer1. Paper: 2.
        channels: of the four branches. Paper: 18, 36, 72, 144.
        blocks: per branch and stage. Paper: 2.
        momentum: of batch norms. Paper: 0.01.
        stem_stride: 1, 2 or 4; above 1 is cheaper and coarser. Paper: 1.

    Raises:
        ValueError: a size out of range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        stem_width: int = 64,
        planes: int = 64,
        bottlenecks: int = 2,
        channels: Sequence[int] = (18, 36, 72, 144),
        blocks: int = 2,
        momentum: float = 0.01,
        stem_stride: int = 1,
    ) -> None:
        sizes = (stem_width, planes, bottlenecks, blocks, *channels)
        if len(channels) != 4 or not all(isinstance(n, int) and 1 <= n <= 4096 for n in sizes):
            raise ValueError(f"widths and blocks must be 1 to 4096, four channels, got {sizes}")
        if stem_stride not in (1, 2, 4):
            raise ValueError(f"stem_stride must be 1, 2 or 4, got {stem_stride}")
        stages = {
            f"stage{branches}": {
                "num_modules": 1,
                "num_branches": branches,
                "block_type": "BASIC",
                "num_blocks": (blocks,) * branches,
                "num_channels": tuple(channels[:branches]),
                "fuse_method": "SUM",
            }
            for branches in (2, 3, 4)
        }
        first = {
            "block_type": "BOTTLENECK",
            "num_blocks": (bottlenecks,),
            "num_channels": (planes,),
        }
        super().__init__(
            {"stem_width": stem_width, "stage1": first, **stages},
            in_chans=in_channels,
            num_classes=0,
            head="maps",
        )
        self.channels, self.stride, self.checkpointing = tuple(channels), stem_stride, False
        self.conv1.stride = (2, 2) if stem_stride > 1 else (1, 1)
        self.conv2.stride = (2, 2) if stem_stride > 2 else (1, 1)
        if stem_width != 64:  # timm's stem always ends with 64
            self.conv2 = nn.Conv2d(
                stem_width, stem_width, 3, self.conv2.stride, padding=1, bias=False
            )
            self.bn2 = nn.BatchNorm2d(stem_width)
            self.layer1 = self._make_layer(Bottleneck, stem_width, planes, bottlenecks)
            self.init_weights()
        _smooth_upsampling(self)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return four maps, shapes (N, channels[i], H / (stride 2^i), W / (stride 2^i)).

        Args:
            images: normalised, float, shape (N, in_channels, H, W), sides divisible by 8 stride.
        """
        run = checkpointed if self.checkpointing and self.training else _call
        x = self.act1(self.bn1(self.conv1(images)))
        x = self.act2(self.bn2(self.conv2(x)))
        for block in self.layer1:
            x = run(block, x)
        maps = [x]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            maps = run(
                stage, [step(maps[min(i, len(maps) - 1)]) for i, step in enumerate(transition)]
            )
        return maps


class TimmMaps(nn.Module):
    """The four finest maps of a convolutional network of timm, each half the size of the last.

    Args:
        name: timm's, e.g. ``resnet18`` or ``convnext_atto``.
        in_channels: of the image.
        pretrained: fetch timm's weights.

    Raises:
        ValueError: the network gives no such maps.
        DataError: the weights cannot be fetched.
    """

    def __init__(self, name: str, in_channels: int = 3, *, pretrained: bool = False) -> None:
        super().__init__()
        options: dict[str, Any] = {"features_only": True, "out_indices": (0, 1, 2, 3)}
        options["in_chans"] = in_channels
        try:
            network: Any = timm.create_model(name, **options)
        except Exception as error:  # timm's networks refuse in many ways
            raise ValueError(f"backbone {name} gives no four maps ({reason(error)})") from error
        strides: list[int] = network.feature_info.reduction()
        layout = str(getattr(network, "output_fmt", "NCHW")).removeprefix("Format.")
        if strides != [strides[0] * 2**i for i in range(4)] or layout != "NCHW":
            raise ValueError(
                f"backbone {name} does not fit: its maps must be (N, C, H, W) and halve from one "
                f"to the next; they are {layout} with strides {strides}"
            )
        self.channels, self.stride = tuple(network.feature_info.channels()), strides[0]
        self.network = _fetch(name, **options) if pretrained else network

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return four maps, see `HRNet.forward`.

        Args:
            images: normalised, shape (N, in_channels, H, W).
        """
        maps: list[Tensor] = self.network(images)
        return maps


def create_backbone(
    name: str = PAPER,
    in_channels: int = 3,
    *,
    pretrained: bool = False,
    stem_stride: int = 1,
    options: Mapping[str, Any] | None = None,
) -> HRNet | TimmMaps:
    """Return a backbone.

    Args:
        name: ``hrnet_w18_small_v2``, the paper's; ``hrnet_tiny``, for tests and small experiments
            (our choice); or a convolutional network of timm.
        in_channels: of the image.
        pretrained: fetch timm's ImageNet weights over the network.
        stem_stride: of the HRNets, see `HRNet`.
        options: further arguments of `HRNet`.

    Raises:
        ValueError: unknown or unfit name, or arguments that do not go with it.
        DataError: the weights cannot be fetched.

    Example:
        >>> create_backbone("hrnet_tiny").channels
        (6, 12, 24, 48)
    """
    if name not in (PAPER, TINY):
        if not timm.is_model(name):
            raise ValueError(f"no backbone {name}{nearest(name, [TINY, *timm.list_models()])}")
        if stem_stride != 1 or options:
            raise ValueError(f"stem_stride and options are for {PAPER} and {TINY}, not for {name}")
        return TimmMaps(name, in_channels, pretrained=pretrained)
    if pretrained and (name == TINY or options):
        raise ValueError(f"pretrained weights are for {PAPER} with the paper's sizes")
    sizes: dict[str, Any] = {**(TINY_OPTIONS if name == TINY else {}), **(options or {})}
    network = HRNet(in_channels, stem_stride=stem_stride, **sizes)
    if pretrained:
        fetched = _fetch(name, in_chans=in_channels).state_dict()
        network.load_state_dict({key: fetched[key] for key in network.state_dict()})
    return network


def _fetch(name: str, **options: Any) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # no network, no such weights, a full disk, ...
        raise DataError(
            f"the weights of backbone {name} cannot be fetched ({reason(error)}); train without "
            "pretrained weights, or fetch them where there is a network"
        ) from error


def _smooth_upsampling(module: nn.Module) -> None:
    """Replace timm's nearest-neighbour upsampling by bilinear with aligned corners."""
    for name, child in module.named_children():
        if isinstance(child, nn.Upsample):
            smooth = nn.Upsample(
                scale_factor=child.scale_factor, mode="bilinear", align_corners=True
            )
            setattr(module, name, smooth)
        else:
            _smooth_upsampling(child)


def _call(module: nn.Module, *inputs: Any) -> Any:
    return module(*inputs)
