"""The methods of `d-tiil-predict`: the pipeline, and baselines on the same model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from d_tiil.attention import mean_attention
from d_tiil.baselines import clip_baseline
from d_tiil.calibration import features_of
from d_tiil.clip import ClipModel
from d_tiil.clip_patches import ClipPatches
from d_tiil.findings import Finding, finding_of
from d_tiil.maps import map_timesteps
from d_tiil.masks import scale_map, to_bytes
from d_tiil.model import DiffusionModel
from d_tiil.noise import add_noise, fixed_pairs
from d_tiil.options import Depth
from d_tiil.phrases import content_words
from d_tiil.pipeline import DTIILPipeline
from d_tiil.records import Record
from d_tiil.saved import map_levels
from d_tiil.steps import Run
from d_tiil.tokens import token_positions


class Answer(NamedTuple):
    """What a method said of one pair.

    Attributes:
        finding: in the form that is measured.
        facts: plain values beside it.
        edited: the image as the caption would have it, or None.
    """

    finding: Finding
    facts: dict[str, Any]
    edited: Image.Image | None = None


Finder = Callable[[Record, Image.Image], Answer]


def pipeline_finder(pipe: DTIILPipeline, depth: Depth, seed: int, resize: bool) -> Finder:
    """Return the method itself.

    Args:
        pipe: with its settings.
        depth: how far it goes.
        seed: of the noise, the same for all pairs.
        resize: fit images to the model.
    """

    def find(record: Record, image: Image.Image) -> Answer:
        done = pipe(image, record.caption, depth=depth, seed=seed, resize=resize)
        found = finding_of(done)
        if done.final is not None:  # as it was thresholded
            levels = map_levels(done.final, done.settings.maps.blur)
            found = Finding(found.score, found.mask, levels, found.words, found.top)
        facts = {
            "features": features_of(done.scores),
            "consistent": done.consistent,
            "consistency": done.score,
            "network_rows": done.rows,
            "note": done.note,
        }
        return Answer(found, facts, done.edited)

    return find


def empty_finder(pipe: DTIILPipeline, seed: int, resize: bool) -> Finder:
    """Return DiffEdit's way: the map of "" against the caption, and L(E_0) - L("") as the score.

    Args:
        pipe: with its settings.
        seed: of the noise, the same for all pairs.
        resize: fit images to the model.
    """

    def find(record: Record, image: Image.Image) -> Answer:
        run = _run(pipe, seed)
        latents = run.model.encode(run.model.fit(image, resize=resize))
        both = run.model.encode_text(["", record.caption])
        none, said = run.errors(latents, both).double().mean(1).tolist()
        found = run.map(latents, both[:1], both[1:], pipe.settings.threshold)
        levels = map_levels(found, pipe.settings.maps.blur)
        finding = Finding(score=said - none, mask=found.mask, map=levels)
        return Answer(finding, {"network_rows": run.model.rows})

    return find


def attention_finder(pipe: DTIILPipeline, seed: int, resize: bool) -> Finder:
    """Return the mean cross-attention of the caption's content words as the map, and no score.

    Args:
        pipe: with its settings.
        seed: of the noise, the same for all pairs.
        resize: fit images to the model.
    """

    def find(record: Record, image: Image.Image) -> Answer:
        run = _run(pipe, seed)
        model, how = run.model, pipe.settings.maps
        stock: Any = pipe  # what diffusers adds has no types
        latents = model.encode(model.fit(image, resize=resize))
        pairs = fixed_pairs(
            how.draws, tuple(latents.shape[1:]), seed=seed, train_steps=len(model.alpha_bars)
        )
        timesteps = map_timesteps(how, len(model.alpha_bars)).to(latents.device)
        noised = add_noise(latents, pairs.noise.to(latents.device), model.alpha_bars[timesteps])
        embedding = model.encode_text([record.caption]).expand(how.draws, -1, -1)
        maps = mean_attention(
            stock.unet,
            model.denoiser(),
            (noised, timesteps, embedding),
            max_rows=pipe.settings.max_rows,
        ).cpu()
        words = content_words(record.caption)
        tokens = [t for w in words for t in token_positions(record.caption, w, stock.tokenizer)]
        whole = maps[tokens].mean(0) if tokens else torch.zeros(maps.shape[1:])
        levels: np.ndarray = to_bytes(scale_map(whole)).numpy()
        return Answer(Finding(map=levels), {"network_rows": model.rows})

    return find


def clip_finder(source: str, device: torch.device) -> Finder:
    """Return likeness of picture and caption by CLIP alone.

    Args:
        source: folder or hub id of the model.
        device: where it runs.

    Raises:
        DataError: it cannot be read.
    """
    clip = ClipModel.from_pretrained(source, device=device)
    baseline = clip_baseline(clip, ClipPatches.from_pretrained(source, device=device))
    return lambda record, image: Answer(baseline(record), {})


def _run(pipe: DTIILPipeline, seed: int) -> Run:
    bar: Any = pipe.progress_bar  # type: ignore[attr-defined]
    return Run(DiffusionModel(pipe), pipe.settings, seed, lambda total: bar(total=total))
