"""What any method must beat, without a diffusion model: chance, everything, and CLIP.

Each baseline takes a record and returns a `d_tiil.findings.Finding`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from d_tiil.findings import Finding
from d_tiil.phrases import content_words
from d_tiil.records import Record

if TYPE_CHECKING:
    from d_tiil.clip import ClipModel
    from d_tiil.clip_patches import ClipPatches

Baseline = Callable[[Record], Finding]


def random_baseline(seed: int = 0, *, side: int = 16) -> Baseline:
    """Return a method that guesses score, map and word, the same for a record and seed.

    Args:
        seed: of all guesses.
        side: of the maps, in patches of uniform noise.
    """

    def find(record: Record) -> Finding:
        rng = np.random.default_rng([seed, zlib.crc32(record.name.encode())])
        words = content_words(record.caption)
        top = words[rng.integers(len(words))] if words else None
        return Finding(
            score=float(rng.random()),
            map=rng.random((side, side), np.float32),
            words=() if top is None else (top,),
            top=top,
        )

    return find


def full_baseline(record: Record) -> Finding:
    """Return the finding that everything is wrong: all pixels and all content words."""
    words = tuple(content_words(record.caption))
    return Finding(
        score=1.0,
        mask=np.ones((1, 1), bool),
        map=np.ones((1, 1), np.float32),
        words=words,
        top=words[0] if words else None,
    )


def clip_baseline(clip: ClipModel, patches: ClipPatches | None = None) -> Baseline:
    """Return a method by likeness alone.

    The score is the negative cosine of picture and caption, the map that of the picture's patches
    and the caption, and the word the one whose "A photo of ..." is least like the picture.

    Args:
        clip: embeds pictures and texts.
        patches: of the same model; without them there is no map.
    """
    from d_tiil.clip import TEMPLATE

    def find(record: Record) -> Finding:
        picture, words = record.open_image(), content_words(record.caption)
        texts = clip.embed_texts([record.caption, *(TEMPLATE.format(w.text) for w in words)])
        likeness = texts @ clip.embed_images([picture])[0]
        top = words[int(likeness[1:].argmin())] if words else None
        return Finding(
            score=-float(likeness[0]),
            map=None if patches is None else patches.unlikeness(picture, texts[0]),
            words=() if top is None else (top,),
            top=top,
        )

    return find
