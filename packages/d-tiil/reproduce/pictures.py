"""A few cases of the study as a picture for the documentation.

``python pictures.py --model FOLDER --out docs/assets/d-tiil-cases.png`` after the experiment. The
cases are the first of each kind, whatever is found in them.
"""

from __future__ import annotations

import argparse
import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from answers import SEED, SETTINGS
from d_tiil import DTIILPipeline, Record
from d_tiil.measures import iou
from d_tiil.methods import empty_finder
from papercommons.files import atomic_path
from papercommons.report import image_grid_png
from PIL import Image
from plan import EVALUATION, FURTHER_KINDS, KINDS, SIMPLE, Job, record_of

FIRST = 2  # scenes of a kind that are drawn; the first is shown
COLUMNS = 6
COLORS = 128  # of the file's palette


def main() -> None:
    """Draw a row for each kind: picture, truth, both maps, the edited picture, the baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model of simple scenes")
    parser.add_argument("--out", type=Path, required=True, help="PNG file")
    options = parser.parse_args()
    pipe: Any = DTIILPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    pipe.settings = SETTINGS
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    for kind in (*KINDS, *FURTHER_KINDS):
        job = Job(SIMPLE, f"{kind}-test-0000", "test", "caption", True)
        row = drawn(pipe, record_of(job, FIRST, EVALUATION))
        pictures += [picture for picture, _ in row]
        captions += [caption for _, caption in row]
    drawn_all = Image.open(io.BytesIO(image_grid_png(pictures, captions, columns=COLUMNS)))
    with atomic_path(options.out) as path:
        drawn_all.convert("RGB").quantize(COLORS).save(path, format="png", optimize=True)


def drawn(pipe: Any, record: Record) -> list[tuple[np.ndarray, str]]:
    """Return the pictures of a case with words under which they stand."""
    image = record.open_image()
    truth = record.true_mask((image.height, image.width))
    assert truth is not None
    done = pipe(image, record.caption, seed=SEED)
    empty = empty_finder(pipe, SEED, True)(record, image).finding
    most = max(done.candidates, key=lambda word: word.score)
    wrong = ", ".join(word.text for word in record.words or ())
    right = any(most.start < word.end and word.start < most.end for word in record.words or ())
    said = f"{most.text} ({'right' if right else 'wrong'})"
    framed = np.pad(truth.astype(np.uint8) * 255, 1, constant_values=128)
    cells = [
        (np.asarray(image), textwrap.fill(record.caption, 22)),
        (framed, f"truth: {wrong}" if len(wrong) < 20 else "truth: all of it"),
    ]
    maps: list[tuple[str, Any]] = [
        ("step 1", done.first.values),
        ("four steps", done.final.values),
        ("empty prompt", empty.map),
    ]
    for name, levels in maps:
        fit = iou((levels > 255 * SETTINGS.threshold).repeat(2, 0).repeat(2, 1), truth)
        cells.append((levels, f"{name}, IoU {fit:.2f}"))
    cells.insert(3, (np.asarray(done.edited), f"edited\nfound: {said}"))
    return cells


if __name__ == "__main__":
    main()
