"""What `rld-distill-teacher` does: a classifier trained on labels alone, to be a teacher."""

from __future__ import annotations

from dataclasses import asdict, replace

from papercommons.cli import RunOptions
from papercommons.report import Result
from papercommons.training import begin_run

from rld_distill.data import open_data
from rld_distill.distill import distill
from rld_distill.options import DataOptions, RecipeOptions
from rld_distill.plans import OF_THE_STUDENT, make_plan, resolve_recipe
from rld_distill.training import finish_run


def teach(
    data: str,
    out: str,
    network: str | None,
    pretrained: bool,
    recipe: RecipeOptions,
    images: DataOptions,
    run: RunOptions,
) -> Result:
    """Train a teacher, judge it, write the run's folder, and return the result.

    Args:
        data: see `rld_distill.sources.parse_data`.
        out: folder of the run.
        network: its name; None takes the preset's teacher.
        pretrained: whether it begins with published weights.
        recipe: how to train.
        images: how images are read.
        run: how to run.

    Raises:
        DataError: the images cannot be used.
    """
    values = resolve_recipe(recipe, images, run, student=network)
    chosen = network or values["teacher"]
    plan = replace(make_plan("ce", values | {"student": chosen}, {}), pretrained=pretrained)
    own = {name: value for name, value in values.items() if name not in OF_THE_STUDENT}
    arguments = {"data": data, "out": out, "network": chosen, "pretrained": pretrained}
    settings = {**arguments, **asdict(images), **own, **run.settings()}
    folder = begin_run(settings, run)
    read = open_data(
        data, images, run, batch_size=values["batch_size"], val_fraction=values["val_fraction"]
    )
    outcome = distill(plan, read, None, run=run, out=folder)
    return finish_run("rld-distill-teacher", plan, read, outcome, settings, folder)
