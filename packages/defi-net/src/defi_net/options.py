"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_positive

PACKAGE = "defi-net"
STEPS = ("resize", "blur", "noise", "webp", "jpeg")
"""Steps after inpainting, in the order in which they are done."""


@dataclass(frozen=True)
class DataOptions:
    """The data set.

    Attributes:
        layout: pairs, manifest, mani, iid, defacto, autosplice, cocoglide, tgif or deepfill; auto
            finds out.
        missing_mask: a photograph without a mask, or with an empty one, is an error or authentic.
        resize_masks: fit masks of another size to their photographs.
        skip_bad: leave out photographs that cannot be used (they are named) instead of stopping.
    """

    layout: str = "auto"
    missing_mask: Literal["error", "authentic"] = "error"
    resize_masks: bool = False
    skip_bad: bool = False


@dataclass(frozen=True)
class SplitOptions:
    """The splits of the data.

    Attributes:
        val: another data set for validation.
        test: another data set for testing.
        val_fraction: share of the source photographs held out if there is no val split.
    """

    val: str | None = None
    test: str | None = None
    val_fraction: float = 0.1

    def __post_init__(self) -> None:
        check_fraction("[0, 1)", val_fraction=self.val_fraction)


@dataclass(frozen=True)
class NetworkOptions:
    """The network.

    Attributes:
        backbone: hrnet_w18_small_v2 (the paper's), hrnet_tiny, or a convolutional network of timm;
            the preset's if not given.
        width: channels of neck and head; the preset's if not given.
        neck: dfpl (the paper's), fpn or unet.
        head: ream-saff (the paper's), or sum of logits of all levels.
        stem: what the backbone sees: rgb (the paper's), or srm or bayar residuals.
        stem_stride: 1 (the paper's), 2 or 4: cheaper and coarser.
        saff_init: first values of SAFF: ones (a plain sum, ours), or official.
        pretrained: fetch timm's ImageNet weights for the backbone.
        checkpointing: less memory in training, for a third more time.
    """

    backbone: str | None = None
    width: int | None = None
    neck: Literal["dfpl", "fpn", "unet"] = "dfpl"
    head: Literal["ream-saff", "sum"] = "ream-saff"
    stem: Literal["rgb", "srm", "bayar"] = "rgb"
    stem_stride: Literal[1, 2, 4] = 1
    saff_init: Literal["ones", "official"] = "ones"
    pretrained: bool = False
    checkpointing: bool = False


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe.

    Attributes:
        preset: what holds for all that is not given: quick (a narrow network on crops, minutes on
            two cores) or paper (full size, for a GPU); auto is paper where there is a CUDA device,
            else quick.
        size: side of the square that the network sees, a multiple of 8.
        fit: resize the whole photograph to it (the paper's), or crop at full resolution.
        augment: none, paper (mirror, cut, rotation), or robust (mirror, right angles, JPEG,
            resizing, blur, noise).
        epochs: passes over the training photographs.
        batch_size: photographs per step and device.
        lr: peak learning rate of Adam.
        schedule: plateau (the paper's), cosine or constant.
        bce: official (plain mean, as the published code works) or weighted along edges.
        edges: edge labels: inner rim of the mask (the paper's), or a band on both sides.
        mask_weight: of the loss of the mask.
        edge_weight: of the loss of its edge.
        false_alarm_rate: share of authentic val photographs that the threshold for whole
            photographs lets be called forged.
    """

    preset: Literal["auto", "quick", "paper"] = "auto"
    size: int | None = None
    fit: Literal["resize", "crop"] | None = None
    augment: Literal["none", "paper", "robust"] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    schedule: Literal["plateau", "cosine", "constant"] | None = None
    bce: Literal["official", "weighted"] = "official"
    edges: Literal["inner", "band"] = "inner"
    mask_weight: float = 5.0
    edge_weight: float = 1.0
    false_alarm_rate: float = 0.05

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        check_positive(lr=self.lr)
        check_side("--size", self.size)
        check_fraction("[0, 1)", false_alarm_rate=self.false_alarm_rate)


@dataclass(frozen=True)
class ViewOptions:
    """How photographs are looked at (as in training, if neither --tile nor --resize is given).

    Attributes:
        tile: side of overlapping tiles in pixels, a multiple of 8: keeps every trace.
        overlap: least overlap of tiles in pixels.
        resize: make every photograph a square of this side instead, as the published evaluation
            does (352).
        batch_size: tiles computed at once.
    """

    tile: int | None = None
    overlap: int = 64
    resize: int | None = None
    batch_size: int = 4

    def __post_init__(self) -> None:
        if self.tile is not None and self.resize is not None:
            raise ValueError("--tile and --resize exclude each other; give one")
        check_side("--tile", self.tile)
        check_side("--resize", self.resize)
        check_at_least(1, batch_size=self.batch_size)
        most = (self.tile or 352) - 8
        if not 0 <= self.overlap <= most:
            raise ValueError(
                f"--overlap must be 0 to {most} for --tile {most + 8}, got {self.overlap}"
            )


@dataclass(frozen=True)
class MaskOptions:
    """What is inpainted, and by what.

    Attributes:
        engines: telea, ns, biharmonic, patch, diffusers:FOLDER; items take turns.
        masks: freeform, box, blob, thin, medium, thick, file; one is drawn for each item.
        mask_folder: masks of the kind file.
        area: least and greatest share of the picture to inpaint.
        mode: sp keeps of the engine's picture what is masked, fr keeps all of it (diffusers).
        authentic: share of items that are left as they are.
        radius: of telea and ns, least and greatest, in pixels.
        prompt: what diffusers is to paint.
        steps: of diffusers.
        strength: of diffusers, in (0, 1].
        guidance: guidance scale of diffusers.
        accelerator: of diffusers; auto takes a GPU where there is one.
    """

    engines: list[str] = field(default_factory=lambda: ["telea", "ns"])
    masks: list[str] = field(default_factory=lambda: ["freeform"])
    mask_folder: str | None = None
    area: list[float] = field(default_factory=lambda: [0.02, 0.4])
    mode: Literal["sp", "fr"] = "sp"
    authentic: float = 0.2
    radius: list[int] = field(default_factory=lambda: [3, 10])
    prompt: str = ""
    steps: int = 20
    strength: float = 1.0
    guidance: float = 7.5
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"


@dataclass(frozen=True)
class PictureOptions:
    """How pictures are cut before, and what happens to them after.

    A range is LEAST,GREATEST; one number is both.

    Attributes:
        size: side of a square cut out at random; 0 takes the whole photograph.
        scale: resize the photograph by a factor of this range first.
        sensor_noise: sigma of noise put on before inpainting, in grey levels: stands for a
            sensor's, which resizing removes.
        resize: afterwards, by a factor of this range.
        blur: sigma in pixels.
        noise: sigma in grey levels.
        webp: quality.
        jpeg: quality.
        format: file format, png, jpg or webp.
    """

    size: int = 256
    scale: list[float] = field(default_factory=lambda: [1.0, 1.0])
    sensor_noise: list[float] = field(default_factory=lambda: [0.0, 0.0])
    resize: list[float] | None = None
    blur: list[float] | None = None
    noise: list[float] | None = None
    webp: list[float] | None = None
    jpeg: list[float] | None = None
    format: Literal["png", "jpg", "webp"] = "png"


def check_side(option: str, side: int | None) -> None:
    """Raise ValueError if a side is given that the network cannot halve three times."""
    if side is not None and (side < 16 or side % 8):
        near = max(16, round(side / 8) * 8)
        raise ValueError(
            f"{option} must be a multiple of 8 and >= 16, got {side}; the nearest is {near}"
        )
