"""Options of the commands that go through a benchmark; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from papercommons.checks import check_at_least
from papercommons.errors import DataError, nearest

from multi_edits.baselines import Img2ImgSettings, LeditsSettings, Masks
from multi_edits.benchmark import Benchmark, Record

Method = Literal["multi-edits", "ledits++", "img2img"]
Save = Literal["edited", "all"]
_STEPS = {"ledits++": 30, "img2img": 50}


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
        return self.baseline_steps or _STEPS[method]


def choose_records(
    benchmark: Benchmark, categories: Sequence[str] | None, limit: int | None
) -> tuple[Record, ...]:
    """Return the records that are edited or judged: usable, of some categories, the first ones.

    Args:
        benchmark: opened.
        categories: names, or None for all.
        limit: how many at most, or None for all.

    Raises:
        DataError: no such category, or no record is left.
    """
    known = sorted({record.category for record in benchmark})
    for name in categories or ():
        if name not in known:
            raise DataError(
                f"--categories: {benchmark.path} has {', '.join(known)}, not {name!r}"
                f"{nearest(name, known)}"
            )
    chosen = [r for r in benchmark.usable if not categories or r.category in categories]
    if not chosen:
        first = next((str(defect) for defect in benchmark.defects if defect.fatal), "none is there")
        raise DataError(f"{benchmark.path}: no record can be edited: {first}")
    return tuple(chosen[:limit])
