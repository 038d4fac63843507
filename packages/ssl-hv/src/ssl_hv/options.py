"""The options of a recipe; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_positive

PACKAGE = "ssl-hv"


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe.

    Attributes:
        preset: what holds for all that is not given: quick (minutes on two cores) or paper; auto is
            paper where there is a CUDA device, else quick.
        epochs: passes over the training images or pairs.
        batch_size: images or pairs per step and device.
        lr: peak learning rate.
        optimizer: adamw or sgd.
        weight_decay: of the optimiser.
        warmup: share of the steps over which the learning rate rises; the preset's if not given.
        augment: handwriting (ours: no mirror writing), paper, or none; the method's own if not
            given.
    """

    preset: Literal["auto", "quick", "paper"] = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: Literal["adamw", "sgd"] | None = None
    weight_decay: float | None = None
    warmup: float | None = None
    augment: Literal["handwriting", "paper", "none"] | None = None

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs)
        check_at_least(2, batch_size=self.batch_size)  # batch statistics need two
        check_positive(lr=self.lr)
        check_at_least(0, weight_decay=self.weight_decay)
        check_fraction("[0, 1)", warmup=self.warmup)
