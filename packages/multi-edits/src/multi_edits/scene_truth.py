"""What edited scenes really show: read without a model, and against the exact edited pictures.

For benchmarks of `multi_edits.synthesizing`, which know what is true.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from papercommons.data.images import read_image
from papercommons.data.scene_reading import read_scene
from papercommons.data.scenes import Fact, Scene, Thing, find_preset
from papercommons.errors import DataError, reason
from PIL import Image

from multi_edits.benchmark import Record
from multi_edits.metrics.columns import Column
from multi_edits.reading import read_json

FACTS = "scenes.json"
TARGETS = "targets"
COLUMNS = (
    Column("edits_right", "edits right (%)", 1e2, "high"),
    Column("all_right", "all right (%)", 1e2, "high"),
    Column("target_psnr", "PSNR to the exact picture (dB)", 1, "high"),
)
_MOST_PSNR = 100.0


class SceneTruth(NamedTuple):
    """What is true of one record.

    Attributes:
        before: the scene of its picture.
        facts: what its edits make true.
    """

    before: Scene
    facts: tuple[Fact, ...]


def read_truth(data: str | Path) -> dict[str, SceneTruth]:
    """Return what is true of the records of a benchmark of scenes, by id; of another one nothing.

    Args:
        data: what `multi_edits.benchmark.open_benchmark` was given.

    Raises:
        DataError: its scenes.json is broken.
    """
    path = Path(data) / FACTS
    if not path.is_file():
        return {}
    listed = read_json(path)
    try:
        return {name: _scene(entry) for name, entry in listed.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not as multi-edits-make-scenes writes it ({reason(error)})"
        ) from None


def _scene(entry: Mapping[str, Any]) -> SceneTruth:
    things = tuple(Thing(**thing) for thing in entry["things"])
    scene = Scene(find_preset(entry["preset"]), things, entry["background"])
    facts = tuple(Fact(*fact) for fact in entry["edits"])
    scene.edited(facts).facts()
    return SceneTruth(scene, facts)


def judge_scene(
    record: Record, truth: SceneTruth, edited: Image.Image, data: str | Path
) -> dict[str, float | None]:
    """Return the measures of `COLUMNS` for one edited picture.

    `edits_right` is the share of wanted facts that the picture shows; `all_right` is 1 where it
    shows these and all the other facts of the scene as they were, else 0.

    Args:
        record: its record.
        truth: of that record.
        edited: RGB.
        data: folder of the benchmark, with the exact pictures.
    """
    seen = set(read_scene(np.asarray(edited.convert("RGB")), truth.before))
    values: dict[str, float | None] = {
        "edits_right": sum(fact in seen for fact in truth.facts) / len(truth.facts),
        "all_right": float(seen == set(truth.before.edited(truth.facts).facts())),
        "target_psnr": None,
    }
    path = Path(data) / TARGETS / record.category / f"{record.id}.png"
    if path.is_file():
        target = np.asarray(read_image(path), np.float64) / 255
        error = np.square(target - np.asarray(edited.convert("RGB"), np.float64) / 255).mean()
        values["target_psnr"] = min(_MOST_PSNR, float(-10 * np.log10(max(error, 1e-12))))
    return values
