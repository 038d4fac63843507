"""`d-tiil-train`: the tiny text-to-image model, trained on scenes in minutes."""

from __future__ import annotations

from papercommons.cli import RunOptions
from papercommons.report import Result
from papercommons.text_to_image.command import train_on_scenes
from papercommons.text_to_image.options import SceneModelOptions

from d_tiil.lightning import DTIILModule
from d_tiil.options import PACKAGE


def train_model(out: str, options: SceneModelOptions, run: RunOptions) -> Result:
    """Train the tiny model, write the run's folder with ``model`` in it, and return the result.

    Args:
        out: folder of the run.
        options: scenes and training.
        run: how to run.

    Raises:
        DataError: the folder cannot be used, see `papercommons.training.begin_run`.
        ValueError: options that do not go together.
    """
    return train_on_scenes(DTIILModule, out, options, run, package=PACKAGE, command="d-tiil-train")
