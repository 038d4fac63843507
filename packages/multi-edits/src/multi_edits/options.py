"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from papercommons.checks import check_at_least, check_fraction
from papercommons.errors import DataError, nearest

from multi_edits.baselines import Img2ImgSettings, LeditsSettings, Masks

if TYPE_CHECKING:
    from multi_edits.branches import SamplingSettings
    from multi_edits.grouping import GroupingSettings

PACKAGE = "multi-edits"
Method = Literal["multi-edits", "ledits++", "img2img"]
Save = Literal["edited", "all"]
Mode = Literal["per-word", "parallel", "single", "sequential"]
MOST_SCENE_EDITS = 8
BASELINE_STEPS = {"ledits++": 30, "img2img": 50}
SCENE_KINDS = {
    "simple": ("color", "shape", "background"),
    "crowded": ("color", "shape", "texture", "background", "add", "delete"),
}


@dataclass(frozen=True)
class ModelOptions:
    """The model, and where it runs.

    Attributes:
        accelerator: auto, cpu or gpu.
        dtype: of the weights; auto is float16 on CUDA, else float32.
        variant: which of several sets of files of the model, for example fp16.
        offload: keep in the GPU's memory only the network that is at work (needs accelerate).
        resize: fit the image's sides to the model, instead of refusing those that do not.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    variant: str | None = None
    offload: bool = False
    resize: bool = False

    def __post_init__(self) -> None:
        if self.accelerator == "cpu" and self.dtype == "float16":
            raise ValueError("--dtype float16 needs a GPU; take float32 on the CPU")
        if self.accelerator == "cpu" and self.offload:
            raise ValueError("--offload is for a GPU, and --accelerator is cpu")


@dataclass(frozen=True)
class MethodOptions:
    """How edits are made.

    Attributes:
        mode: all edits in one branch, each with its own control and region (per-word, ours); a
            branch for each group of edits (parallel, the paper's); all in one branch with one
            control (single); or one run after another, one for each edit (sequential).
        steps: of the sampling, >= 2.
        guidance: classifier-free guidance of the branches.
        source_guidance: of the source.
        cross_ratio: share of the steps with cross-attention control.
        self_ratio: share of the steps with self-attention control.
        edit_threshold: attention, as a share of its peak, above which a pixel counts as edited;
            lower for larger regions.
        chain_start: share of the steps after which a branch follows the one before it and no longer
            the source.
        gather_masks: a branch may also change what those before it did.
        layout: give each branch a layout stream, the published code's background; twice the work.
        map_level: halvings of the latents' side where attention is read; a quarter if not given.
        compat: paper, or reference for the published code's order of branches and masks.
    """

    mode: Mode = "per-word"
    steps: int = 15
    guidance: float = 4.0
    source_guidance: float = 1.0
    cross_ratio: float = 0.7
    self_ratio: float = 0.7
    edit_threshold: float = 0.5
    chain_start: float = 7 / 15
    gather_masks: bool = True
    layout: bool | None = None
    map_level: int | None = None
    compat: Literal["paper", "reference"] = "paper"

    def __post_init__(self) -> None:
        check_at_least(2, steps=self.steps)
        check_at_least(0, map_level=self.map_level)
        check_fraction("[0, 1]", cross_ratio=self.cross_ratio, self_ratio=self.self_ratio)
        check_fraction("[0, 1]", edit_threshold=self.edit_threshold, chain_start=self.chain_start)
        for name, value in (("", self.guidance), ("source-", self.source_guidance)):
            if not 0 <= value < math.inf:
                raise ValueError(f"--{name}guidance must be a number >= 0, got {value}")
        if self.compat == "reference" and self.mode == "per-word":
            raise ValueError("--compat reference is of several branches; add --mode parallel")
        if self.compat == "reference" and self.layout is False:
            raise ValueError("--compat reference needs the layout streams; leave out --no-layout")

    def sampling(self) -> SamplingSettings:
        """Return the settings of the sampling."""
        from multi_edits.branches import SamplingSettings

        return SamplingSettings(
            guidance=self.guidance,
            source_guidance=self.source_guidance,
            cross_ratio=self.cross_ratio,
            self_ratio=self.self_ratio,
            edit_threshold=self.edit_threshold,
            chain_start=self.chain_start,
            gather_masks=self.gather_masks,
            layout=self.layout,
            map_level=self.map_level,
            compat=self.compat,
        )


@dataclass(frozen=True)
class GroupOptions:
    """How edits are typed and grouped.

    Attributes:
        group_steps: of the short pass that collects attention maps, >= 2.
        theta: least overlap of old and new map of a rigid edit.
        beta: least share of the image that a global edit covers.
        group_threshold: least overlap of two edits of one branch; 0 is any, as in the published
            code.
        order: which kind comes first: the published code's, or the paper's appendix's.
    """

    group_steps: int = 5
    theta: float = 0.9
    beta: float = 0.8
    group_threshold: float = 0.9
    order: Literal["rigid-first", "non-rigid-first"] = "rigid-first"

    def __post_init__(self) -> None:
        check_at_least(2, group_steps=self.group_steps)
        check_fraction(
            "[0, 1]", theta=self.theta, beta=self.beta, group_threshold=self.group_threshold
        )

    def grouping(self) -> GroupingSettings:
        """Return the settings of the grouping."""
        from multi_edits.grouping import GroupingSettings

        return GroupingSettings(
            self.group_steps, self.theta, self.beta, self.group_threshold, self.order
        )


@dataclass(frozen=True)
class BaselineOptions:
    """LEDITS++ and image-to-image, with --method; the defaults are diffusers'.

    Attributes:
        baseline_steps: of the baseline; 30 for ledits++ and 50 for img2img if not given.
        ledits_guidance: of each edit.
        ledits_threshold: share of the image that an edit leaves as it is.
        ledits_warmup: first steps that are not guided.
        ledits_skip: share of the noisiest steps that are left out.
        ledits_masks: from cross-attention, from the predicted noise, or where both agree.
        ledits_drop_old: push away from the replaced phrase too.
        img2img_strength: share of the steps that are run.
        img2img_guidance: classifier-free.
    """

    baseline_steps: int | None = None
    ledits_guidance: float = 5.0
    ledits_threshold: float = 0.9
    ledits_warmup: int = 0
    ledits_skip: float = 0.15
    ledits_masks: Masks = "both"
    ledits_drop_old: bool = False
    img2img_strength: float = 0.8
    img2img_guidance: float = 7.5

    def __post_init__(self) -> None:
        check_at_least(2, baseline_steps=self.baseline_steps)
        for prefix, make in (("ledits", self.ledits), ("img2img", self.img2img)):
            try:
                make()
            except ValueError as error:  # it begins with the setting's name
                raise ValueError(f"--{prefix}-{error}") from None

    def ledits(self) -> LeditsSettings:
        """Return the settings of LEDITS++."""
        return LeditsSettings(
            self.ledits_guidance,
            self.ledits_threshold,
            self.ledits_warmup,
            self.ledits_skip,
            self.ledits_masks,
            self.ledits_drop_old,
        )

    def img2img(self) -> Img2ImgSettings:
        """Return the settings of image-to-image."""
        return Img2ImgSettings(self.img2img_strength, self.img2img_guidance)

    def steps(self, method: Method) -> int:
        """Return the steps of a baseline."""
        return self.baseline_steps or BASELINE_STEPS[method]


@dataclass(frozen=True)
class DataOptions:
    """Which records.

    Attributes:
        categories: only these, e.g. 1_change_object_80,2_add_object_80.
        limit: only the first ones.
    """

    categories: list[str] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_at_least(1, limit=self.limit)


@dataclass(frozen=True)
class MetricOptions:
    """The measures.

    Attributes:
        clip: CLIP network: a folder or hub id of transformers, or open_clip:NAME=WEIGHTS; the
            published tables have openai/clip-vit-large-patch14.
        dino: folder or hub id of a vision transformer, for the structure distance; the published
            tables have facebook/dino-vitb8.
        lpips: weights file of torchvision's SqueezeNet 1.1, or torchvision (downloads them).
        dino_range: what DINO sees: right numbers, or 0..255 as in PIE-Bench's code.
        border: count a mask's outermost pixels as edited, as in PIE-Bench's code.
    """

    clip: str | None = None
    dino: str | None = None
    lpips: str | None = None
    dino_range: Literal["0..1", "0..255"] = "0..1"
    border: bool = True


@dataclass(frozen=True)
class SceneSetOptions:
    """The scenes and their edits.

    Attributes:
        scenes: simple (two things) or crowded (three or four, with textures).
        count: number of records.
        edits: how many edits a record has; numbers take turns.
        kinds: of the edits, drawn at random: color, shape, texture, background, add, delete; all
            that the scenes have if not given.
        held_out: edited scenes have, have not, or may have pairs of colour and shape that the model
            was not trained on.
        size: side of the pictures in pixels; that of the model.
    """

    scenes: Literal["simple", "crowded"] = "simple"
    count: int = 50
    edits: list[int] = field(default_factory=lambda: [1, 2, 3])
    kinds: list[str] | None = None
    held_out: Literal["no", "yes", "any"] = "no"
    size: int = 32

    def __post_init__(self) -> None:
        check_at_least(1, count=self.count)
        if not self.edits or min(self.edits) < 1 or max(self.edits) > MOST_SCENE_EDITS:
            raise ValueError(f"--edits must be 1 to {MOST_SCENE_EDITS} each, got {self.edits}")
        if self.size < 16 or self.size % 8:
            raise ValueError(f"--size must be a multiple of 8 from 16 on, got {self.size}")
        known = SCENE_KINDS[self.scenes]
        for kind in self.kinds or ():
            if kind not in known:
                raise ValueError(
                    f"--kinds: {self.scenes} scenes have {', '.join(known)}, got {kind!r}"
                    f"{nearest(kind, known)}"
                )
        if self.held_out == "yes" and self.scenes == "simple":
            raise ValueError("--held-out yes: simple scenes hold nothing out; take crowded ones")

    @property
    def drawn_kinds(self) -> list[str]:
        """Kinds that edits are drawn from."""
        return list(SCENE_KINDS[self.scenes]) if self.kinds is None else list(self.kinds)


def check_image(image: str) -> tuple[int, int]:
    """Return width and height of an image, upright.

    Raises:
        DataError: it is no readable image.
    """
    from papercommons.data.images import read_image

    if not Path(image).is_file():
        raise DataError(f"{image}: no such file; --image takes a picture")
    try:
        width, height = read_image(image).size
    except DataError as error:  # its advice is for data sets
        why, _, _ = str(error).rpartition("; ")
        raise DataError(f"{why or error}; --image takes another picture") from None
    return width, height
