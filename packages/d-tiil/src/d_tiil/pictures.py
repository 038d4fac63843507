"""Pictures of what was found: regions, maps, words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from papercommons.pictures import RED
from papercommons.report import PALETTE, figure_png

from d_tiil.word_scores import WordScore

MOST_WORDS = 24


def word_bars(candidates: Sequence[WordScore], found: Sequence[WordScore]) -> bytes:
    """Return a PNG with a bar for each word's score, in the caption's order.

    Args:
        candidates: scored words, at least one; of many the highest are shown.
        found: those that were named, in red.
    """
    least = sorted((word.score for word in candidates), reverse=True)[:MOST_WORDS][-1]
    shown = [word for word in candidates if word.score >= least][:MOST_WORDS]
    colors = [f"#{bytes(RED).hex()}" if word in found else PALETTE[0] for word in shown]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.barh(range(len(shown)), [word.score for word in shown], color=colors)
        axes.set_yticks(range(len(shown)), [textwrap.shorten(word.text, 40) for word in shown])
        axes.invert_yaxis()
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("score; greater: the word contradicts the image more")

    return figure_png(draw, width=6.0, height=0.9 + 0.28 * len(shown))


def marked(caption: str, words: Sequence[WordScore]) -> str:
    """Return a caption with square brackets around words.

    Args:
        caption: the text.
        words: places in it that do not overlap.
    """
    for word in sorted(words, key=lambda word: -word.start):
        inside = caption[word.start : word.end]
        caption = f"{caption[: word.start]}[{inside}]{caption[word.end :]}"
    return caption
