"""The LightningModule of the tiny text-to-image model that the experiments use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from papercommons.data.scenes import find_preset
from papercommons.text_to_image.module import TextToImageModule

from d_tiil.settings import TINY, write_settings
from d_tiil.tiny import make_tiny_for


class DTIILModule(TextToImageModule):
    """Trains a text-to-image model; the method itself needs no training.

    See `TextToImageModule` for batches and logs.

    Args:
        preset: scenes whose words the tiny model knows, ``simple`` or ``crowded``.
        pipeline: a StableDiffusionPipeline to train instead of the tiny model.
        full_attention: of the tiny model: cross-attention at 16 x 16 too.
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
        preset: str = "simple",
        *,
        pipeline: Any = None,
        full_attention: bool = False,
        seed: int = 0,
        lr: float = 2e-3,
        warmup: float = 0.05,
        ema_decay: float = 0.995,
        empty: float = 0.1,
    ) -> None:
        tiny = pipeline is None
        if tiny:
            known = find_preset(preset)
            pipeline = make_tiny_for(known, full_attention=full_attention, seed=seed)
        super().__init__(pipeline, lr=lr, warmup=warmup, ema_decay=ema_decay, empty=empty)
        self.tiny = tiny

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write an ordinary diffusers folder of the averaged weights, and return it.

        Of the tiny model it also holds the method's settings that suit it.

        Args:
            folder: must be new or empty, or hold a pipeline, which is replaced.

        Raises:
            DataError: the folder holds something else.
        """
        written = super().save_pretrained(folder)
        if self.tiny:
            write_settings(written, TINY)
        return written
