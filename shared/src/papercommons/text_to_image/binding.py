"""Whether a model draws what a caption says: made pictures, read exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from papercommons.data.scene_reading import read_scene
from papercommons.data.scenes import BACKGROUND, Scene


def draw_captions(
    pipeline: Any,
    captions: Sequence[str],
    *,
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = 0,
    batch_size: int = 64,
) -> np.ndarray:
    """Return pictures of captions, uint8, shape (N, H, W, 3).

    Args:
        pipeline: the model, a StableDiffusionPipeline.
        captions: N sentences.
        steps: of its scheduler, >= 1.
        guidance: scale; 1 is none.
        seed: of the noise.
        batch_size: captions at a time; the noise does not depend on it.
    """
    pipeline.set_progress_bar_config(disable=True)
    made = []
    for start in range(0, len(captions), batch_size):
        batch = list(captions[start : start + batch_size])
        generators = [
            torch.Generator().manual_seed(seed * 1_000_003 + start + k) for k in range(len(batch))
        ]
        made.append(
            pipeline(
                batch,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
                output_type="np",
            ).images
        )
    return np.round(np.concatenate(made) * 255).astype(np.uint8)


def measure_binding(pictures: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
    """Return how much of what full captions say is in the pictures made from them.

    Args:
        pictures: uint8, shape (N, H, H, 3).
        scenes: N; of them the full captions were drawn.

    Returns:
        Shares in [0, 1]: per attribute (color, shape, texture, of things that are asked for) and of
        background and present; binding: things asked for that are right in all their attributes;
        scene: pictures that are right in everything.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for picture, scene in zip(pictures, scenes, strict=True):
        wanted = scene.facts()
        found = set(read_scene(picture, scene, search=True))
        for fact in wanted:
            name = BACKGROUND if fact.place == BACKGROUND else fact.attribute
            right[name].append(fact in found)
        for thing in scene.things:
            if thing.present:
                own = [fact for fact in wanted if fact.place == thing.place]
                right["binding"].append(found.issuperset(own))
        right["scene"].append(found == set(wanted))
    return {name: float(np.mean(values)) for name, values in right.items()}
