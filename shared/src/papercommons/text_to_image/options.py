"""Options of the commands that train a model on scenes; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from papercommons.checks import check_at_least, check_positive

LENGTH: dict[str, dict[str, Any]] = {
    "simple": {
        "autoencoder_epochs": 1,
        "text_epochs": 4,
        "sketch_epochs": 2,
        "epochs": 12,
        "full_attention": False,
    },
    "crowded": {
        "autoencoder_epochs": 1,
        "text_epochs": 6,
        "sketch_epochs": 4,
        "epochs": 24,
        "full_attention": False,
    },
}
"""What holds for a kind of scenes unless given: passes over the training scenes, and the model."""


_COUNTS = (
    "count",
    "epochs",
    "autoencoder_epochs",
    "text_epochs",
    "sketch_epochs",
    "batch_size",
    "judged",
)


@dataclass(frozen=True)
class SceneModelOptions:
    """The scenes and the training.

    Attributes:
        scenes: simple (two things) or crowded (three or four, with textures).
        count: number of training scenes.
        epochs: passes over them for U-Net and text encoder; by the scenes if not given.
        autoencoder_epochs: passes for the autoencoder, which comes first; likewise.
        text_epochs: passes for the text encoder alone, which comes second; likewise.
        sketch_epochs: passes in which U-Net and text encoder first learn to draw from nearly pure
            noise and captions that say everything; likewise.
        batch_size: pictures per step and device, for U-Net and text encoder.
        lr: peak learning rate of U-Net and text encoder.
        autoencoder_lr: that of the autoencoder.
        full_attention: cross-attention at 16 x 16 too, not only at 8 x 8; by the scenes if not
            given.
        judged: number of test scenes that are drawn from their captions and read.
    """

    scenes: Literal["simple", "crowded"] = "simple"
    count: int = 6000
    epochs: int | None = None
    autoencoder_epochs: int | None = None
    text_epochs: int | None = None
    sketch_epochs: int | None = None
    batch_size: int = 32
    lr: float = 2e-3
    autoencoder_lr: float = 4e-3
    full_attention: bool | None = None
    judged: int = 100

    def __post_init__(self) -> None:
        check_at_least(1, **{name: getattr(self, name) for name in _COUNTS})
        check_positive(lr=self.lr, autoencoder_lr=self.autoencoder_lr)

    def resolved(self) -> dict[str, Any]:
        """Return what was left to the kind of scenes, by name."""
        chosen = {name: getattr(self, name) for name in LENGTH[self.scenes]}
        return LENGTH[self.scenes] | {k: v for k, v in chosen.items() if v is not None}
