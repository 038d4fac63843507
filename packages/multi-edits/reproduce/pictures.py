"""Pictures of the study for the documentation: some cases, and what the tuning found.

``python pictures.py --model FOLDER --results docs/results/multi-edits.json --out docs/assets``
after the experiment. The cases are the first scene of each kind of edits, with two and with four
edits, whatever the editors make of them; each editor has its frozen setting.
"""

from __future__ import annotations

import argparse
import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arms import KNOWN, LEDITS, PARALLEL, PER_WORD, SEQUENTIAL, SINGLE, edit
from cases import EVALUATION, STRATA, Case, draw_cases
from judging import BOUND, judge
from multi_edits import MultiEditsPipeline
from papercommons.files import atomic_path
from papercommons.report import figure_png, image_grid_png
from PIL import Image
from run import reconstructed

SHOWN = (SINGLE, PER_WORD, SEQUENTIAL, PARALLEL, KNOWN, LEDITS)
COUNTS = (2, 4)
NOTHING = "(nothing)"
COLORS = 128  # of the file's palette


def main() -> None:
    """Draw the tuning, and a row for each case: source, what each editor makes, exact target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the study's model")
    parser.add_argument("--results", type=Path, required=True, help="the study's JSON file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    options = parser.parse_args()
    results = json.loads(options.results.read_text("utf-8"))
    settings = {row["arm"]: row["setting"] for row in results["frozen"]}
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
    for name, png in (("cases", grid), ("tuning", tuning_png(results["tuning"]))):
        with atomic_path(options.out / f"multi-edits-{name}.png") as path:
            whole = Image.open(io.BytesIO(png)).convert("RGB")
            whole.quantize(COLORS).save(path, format="png", optimize=True)


def drawn(pipe: Any, settings: dict[str, Any], case: Case) -> list[tuple[np.ndarray, str]]:
    """Return the pictures of a case with words under which they stand."""
    source = case.scene.render()
    through = reconstructed(pipe, source)
    changes = (f"{e.old or NOTHING} > {e.new or NOTHING}" for e in case.edits)
    words = f"{case.stratum}: " + "; ".join(changes)
    cells = [(source, textwrap.fill(words, 26))]
    for arm in SHOWN:
        made = edit(pipe, arm, settings[arm], case, 0)
        found = judge(made.picture, case, through)
        right = sum(ok for _, ok in found["right"])
        cells.append((made.picture, f"{arm}\n{right} of {len(case.facts)} right"))
    return [*cells, (case.after.render(), "exact target")]


def tuning_png(points: Sequence[dict[str, Any]]) -> bytes:
    """Draw what each editor keeps and gets right at each of its settings."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for arm in SHOWN:
            own = sorted((p["outside"], p["edits right"]) for p in points if p["arm"] == arm)
            axes.plot(*zip(*own, strict=True), "o", label=arm, alpha=0.7)
        axes.axvline(BOUND, color="gray", linestyle=":", label="bound")
        axes.set(xlabel="PSNR where nothing should change, dB", ylabel="share of edits right")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    return figure_png(draw)


if __name__ == "__main__":
    main()
