"""The LightningModule of the tiny text-to-image model that the study edits with."""

from __future__ import annotations

from typing import Any

from papercommons.data.scenes import find_preset
from papercommons.text_to_image.module import TextToImageModule

from multi_edits.tiny import make_tiny_for


class MultiEditsModule(TextToImageModule):
    """Trains a text-to-image model; the editing itself needs no training.

    See `TextToImageModule` for batches and logs.

    Args:
        preset: scenes whose words the tiny model knows, ``simple`` or ``crowded``.
        pipeline: a StableDiffusionPipeline to train instead of the tiny model.
        full_attention: of the tiny model: cross-attention at 16 x 16 too, where maps are fine
            enough for things that lie close.
        seed: of the tiny model's weights.
        lr: peak learning rate, > 0.
        warmup: share of the steps over which it rises, in [0, 1).
        ema_decay: of the average of the weights, in [0, 1).
        empty: share of the captions left empty, in [0, 1).

    Raises:
        ValueError: an unknown preset, or a number out of range.
    """

    def __init__(
        self,
        preset: str = "crowded",
        *,
        pipeline: Any = None,
        full_attention: bool = False,
        seed: int = 0,
        lr: float = 2e-3,
        warmup: float = 0.05,
        ema_decay: float = 0.995,
        empty: float = 0.1,
    ) -> None:
        if pipeline is None:
            known = find_preset(preset)
            pipeline = make_tiny_for(known, full_attention=full_attention, seed=seed)
        super().__init__(pipeline, lr=lr, warmup=warmup, ema_decay=ema_decay, empty=empty)
