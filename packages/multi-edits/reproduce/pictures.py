"""Some cases of the study as a picture for the documentation.

``python pictures.py --model FOLDER --results docs/results/multi-edits.json --out FILE.png`` after
the experiment. The cases are the first scene of each kind of edits, with two and with four edits,
whatever the editors make of them; each editor has its frozen setting.
"""

from __future__ import annotations

import argparse
import io
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from arms import LEDITS, PARALLEL, PER_WORD, SEQUENTIAL, SINGLE, edit
from cases import EVALUATION, STRATA, Case, draw_cases
from judging import judge
from multi_edits import MultiEditsPipeline
from papercommons.files import atomic_path
from papercommons.report import image_grid_png
from PIL import Image
from run import reconstructed

SHOWN = (SINGLE, PER_WORD, SEQUENTIAL, PARALLEL, LEDITS)
COUNTS = (2, 4)
COLORS = 128  # of the file's palette


def main() -> None:
    """Draw a row for each case: source, what each editor makes, the exact target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the study's model")
    parser.add_argument("--results", type=Path, required=True, help="the study's JSON file")
    parser.add_argument("--out", type=Path, required=True, help="PNG file")
    options = parser.parse_args()
    frozen = json.loads(options.results.read_text("utf-8"))["frozen"]
    settings = {row["arm"]: row["setting"] for row in frozen}
    pipe: Any = MultiEditsPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    cases = draw_cases(len(STRATA), EVALUATION, every=True)
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    for case in (case for case in cases if len(case.facts) in COUNTS):
        for picture, caption in drawn(pipe, settings, case):
            pictures.append(picture)
            captions.append(caption)
    grid = image_grid_png(pictures, captions, columns=len(SHOWN) + 2)
    with atomic_path(options.out) as path:
        whole = Image.open(io.BytesIO(grid)).convert("RGB")
        whole.quantize(COLORS).save(path, format="png", optimize=True)


def drawn(pipe: Any, settings: dict[str, Any], case: Case) -> list[tuple[np.ndarray, str]]:
    """Return the pictures of a case with words under which they stand."""
    source = case.scene.render()
    through = reconstructed(pipe, source)
    words = f"{case.stratum}: " + "; ".join(f"{e.old} > {e.new}" for e in case.edits)
    cells = [(source, textwrap.fill(words, 26))]
    for arm in SHOWN:
        made = edit(pipe, arm, settings[arm], case, 0)
        found = judge(made.picture, case, through)
        right = sum(ok for _, ok in found["right"])
        cells.append((made.picture, f"{arm}\n{right} of {len(case.facts)} right"))
    return [*cells, (case.after.render(), "exact target")]


if __name__ == "__main__":
    main()
