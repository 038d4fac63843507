"""d-tiil: a caption names a wrong colour; where the picture contradicts it, and which word it is.

It trains the model of `d-tiil-train` first, some twenty minutes of one core; ``--model`` takes one.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from card import BLUE, GREY, TEXT, TITLE, YELLOW, mark, plain, save, show
from d_tiil import DTIILPipeline, DTIILResult, Record
from d_tiil.measures import iou
from d_tiil.scene_pairs import ScenePairOptions, draw_scene_pairs
from d_tiil.settings import TINY
from d_tiil.training import train_model
from d_tiil.word_spans import overlap
from papercommons.cli import FloatRunOptions
from papercommons.pictures import heat
from papercommons.text_to_image.options import SceneModelOptions

PAIRS, SEED = 25, 1  # of scenes that the model did not see


class Answer(NamedTuple):
    """A pair, what is found, how well the region fits, and whether the word is right."""

    record: Record
    truth: np.ndarray
    found: DTIILResult
    fit: float
    right: bool


def answer(pipe: DTIILPipeline, record: Record) -> Answer:
    """Return what the first step of the method says of a pair."""
    image = record.open_image()
    truth = record.true_mask((image.height, image.width))
    assert truth is not None
    found = pipe(image, record.caption, depth="first")
    right = any(overlap(said, wrong) for said in found.words for wrong in record.words or ())
    return Answer(record, truth, found, iou(found.mask, truth), right)


def main() -> None:
    """Draw the pair whose region is found as well as that of the middle one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a trained model")
    given = parser.parse_args().model
    with TemporaryDirectory() as folder:
        if given is None:
            train_model(folder, SceneModelOptions(), FloatRunOptions(accelerator="cpu"))
        pipe: Any = DTIILPipeline.from_pretrained(given or Path(folder) / "model")
    pipe.set_progress_bar_config(disable=True)
    pipe.settings = TINY
    options = ScenePairOptions(count=PAIRS, calibration=0, kinds=("color",), parts=("caption",))
    answers = [answer(pipe, record) for record in draw_scene_pairs(options, SEED)]
    answers.sort(key=lambda one: one.fit)
    record, truth, found, fit, _ = answers[len(answers) // 2]
    words = sum(one.right for one in answers)
    print(f"d-tiil: IoU {fit:.2f} in the middle, the word is right in {words} of {len(answers)}")
    image = record.open_image()
    assert found.final is not None
    marked = heat(image, found.final.values)

    def draw(figure: Any) -> None:
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.6, 1.2, 1.1])
        show(left, image)
        caption = textwrap.fill(f"“{record.caption}”", 23)
        left.set_title(caption, fontsize=TEXT, loc="center", y=-0.06, pad=0, va="top")
        show(middle, marked, "where")
        mark(middle, truth, marked.size)
        for place, word in enumerate(found.candidates):
            wrong = any(overlap(word, phrase) for phrase in record.words or ())
            edge = YELLOW if wrong else "none"
            colour = BLUE if word in found.words else GREY
            right.barh(place, word.score, color=colour, edgecolor=edge, linewidth=1.8)
        right.set_yticks(range(len(found.candidates)), [word.text for word in found.candidates])
        right.set(xticks=[])
        right.axvline(0, color="black", linewidth=0.8)
        right.set_title("which word", fontsize=TITLE, loc="center")
        right.invert_yaxis()
        plain(right)

    save("d-tiil", draw)


if __name__ == "__main__":
    main()
