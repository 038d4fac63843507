"""What every method says of a pair, as plain values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from d_tiil import ClipModel, DTIILPipeline, DTIILResult, Phrase
from d_tiil.baselines import clip_baseline, full_baseline, random_baseline
from d_tiil.clip_patches import ClipPatches
from d_tiil.findings import Finding, as_bytes
from d_tiil.methods import attention_finder, empty_finder
from d_tiil.model import DiffusionModel
from d_tiil.phrases import content_words
from d_tiil.records import Record
from d_tiil.regions import bounding_box, largest_region
from d_tiil.settings import TINY
from d_tiil.steps import Run
from PIL import Image
from torch import Tensor

SETTINGS = TINY  # what d-tiil-train writes into the model's folder
SEED = 0  # of the noise, the same for all pairs
STEP_1, FOUR = "step 1 alone", "four steps"
EDITED = "four steps, edited latent"
BY_ATTENTION, BY_CLIP = "four steps, words by attention", "four steps, words by CLIP"
TRUE, EMPTY = "true caption", "empty prompt"
ATTENTION, CLIP = "caption attention", "CLIP of scenes"
RANDOM, FULL = "random", "full mask"
OURS = (STEP_1, FOUR)
METHODS = (
    STEP_1,
    FOUR,
    EDITED,
    BY_ATTENTION,
    BY_CLIP,
    TRUE,
    EMPTY,
    ATTENTION,
    CLIP,
    RANDOM,
    FULL,
)


class Clip(NamedTuple):
    """A CLIP model and its patches."""

    model: ClipModel
    patches: ClipPatches


def answer(pipe: DTIILPipeline, clip: Clip | None, record: Record, *, full: bool) -> dict[str, Any]:
    """Return what the methods that need a network say of a pair, and what it cost.

    Args:
        pipe: the model; its settings become those of the study.
        clip: of scenes, or None.
        record: the pair.
        full: all four steps; else step 1 alone, and of a consistent pair no words.
    """
    pipe.settings = SETTINGS
    depth: Any = "full" if full else "first" if record.inconsistent else "score"
    image = record.open_image()
    done = pipe(image, record.caption, depth=depth, seed=SEED)
    model = DiffusionModel(pipe)
    run = Run(model, SETTINGS, SEED, lambda total: None)
    latents = model.encode(image)
    top = max(done.candidates, key=lambda word: word.score, default=None)
    word = None if top is None else Phrase(top.text, top.start, top.end)
    first = done.first or run.map(
        latents, done.embeddings.aligned, done.embeddings.caption, SETTINGS.threshold
    )
    said = {STEP_1: Finding(map=first.values, top=word)}
    if full:
        assert done.final is not None
        said[FOUR] = Finding(map=done.final.values, top=word)
        said |= _variants(run, clip, record, image, latents, done)
    said |= {TRUE: _true_caption(run, record, latents)}
    said |= {EMPTY: empty_finder(pipe, SEED, True)(record, image).finding}
    said |= {ATTENTION: attention_finder(pipe, SEED, True)(record, image).finding}
    if clip is not None:
        said |= {CLIP: clip_baseline(clip.model, clip.patches)(record)}
    return {
        "features": dict(done.scores),
        "errors": [done.gap.first, done.gap.second],
        "steps": len(done.aligned.losses),
        "network rows": done.rows,
        "seconds": sum(done.seconds.values()),
        "methods": {name: packed(finding) for name, finding in said.items()},
    }


def _variants(
    run: Run,
    clip: Clip | None,
    record: Record,
    image: Image.Image,
    latents: Tensor,
    done: DTIILResult,
) -> dict[str, Finding]:
    """Return other ways to end the four steps: the official code's latent, and words by others."""
    assert done.final is not None
    assert done.edited is not None
    texts, said = done.embeddings, dict[str, Finding]()
    if texts.denoised is None:  # nothing was edited
        said[EDITED] = Finding(map=done.final.values)
    else:
        there = run.model.encode(done.edited)
        found = run.map(there, texts.aligned, texts.denoised, SETTINGS.threshold)
        said[EDITED] = Finding(map=found.values)
    region = largest_region(torch.from_numpy(done.final.mask)).numpy()
    box = bounding_box(torch.from_numpy(done.region))
    scorers: dict[str, Any] = {BY_ATTENTION: "attention"} | ({BY_CLIP: "clip"} if clip else {})
    for name, scorer in scorers.items():
        other = Run(run.model, replace(SETTINGS, scorer=scorer), SEED, run.progress)
        scored = other.words(
            record.caption,
            content_words(record.caption),
            latents,
            region,
            done.edited,
            box,
            clip.model if clip else None,
        )
        top = max(scored, key=lambda word: word.score, default=None) if box else None
        said[name] = Finding(top=None if top is None else Phrase(top.text, top.start, top.end))
    return said


def _true_caption(run: Run, record: Record, latents: Tensor) -> Finding:
    """Return the map of the true caption against the given one: no aligned text can know more."""
    if record.caption == record.true_caption:
        return Finding(score=0.0, map=np.zeros(latents.shape[-2:], np.uint8))
    given, true = run.model.encode_text([record.caption, record.true_caption]).split(1)
    wrong, right = run.errors(latents, torch.cat([given, true])).double().mean(1).tolist()
    found = run.map(latents, true, given, SETTINGS.threshold)
    return Finding(score=wrong - right, map=found.values)


def packed(finding: Finding) -> dict[str, Any]:
    """Return a finding's score, map and most suspect word as plain values."""
    kept: dict[str, Any] = {"score": finding.score}
    if finding.map is not None:
        levels = as_bytes(finding.map)
        kept["map"] = {"size": levels.shape, "bytes": levels.tobytes().hex()}
    if finding.top is not None:
        kept["top"] = list(finding.top)
    return kept


def unpacked(kept: dict[str, Any]) -> Finding:
    """Return the finding that `packed` was given, without its mask."""
    levels = None
    if "map" in kept:
        levels = np.frombuffer(bytes.fromhex(kept["map"]["bytes"]), np.uint8)
        levels = levels.reshape(kept["map"]["size"])
    top = Phrase(*kept["top"]) if "top" in kept else None
    return Finding(score=kept["score"], map=levels, top=top)


def trivial(name: str, record: Record) -> Finding:
    """Return what a method without any model says: `RANDOM` or `FULL`."""
    return full_baseline(record) if name == FULL else random_baseline(0)(record)
