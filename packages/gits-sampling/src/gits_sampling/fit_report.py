"""Fitted schedules in words, tables and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from papercommons.report import Section

from gits_sampling.loading import Loaded
from gits_sampling.pictures import costs_png, errors_png, schedules_png
from gits_sampling.sample_pictures import samples_png
from gits_sampling.schedule import Schedule
from gits_sampling.solvers import sample
from gits_sampling.warming import fixed_schedules

if TYPE_CHECKING:
    from gits_sampling.fitting import Fitted


def describe(schedule: Schedule) -> str:
    """Return what made a schedule, in a few words."""
    words = schedule.method
    if schedule.indices is not None and schedule.coeff is not None:
        words = f"{schedule.grid} {schedule.metric} {schedule.coeff:g}"
    return f"{words} + first step" if schedule.afs else words


def row_of(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as a row of a table: noise levels, grid points and predicted cost."""
    return {
        "nfe": schedule.nfe,
        "steps": schedule.steps,
        "sigmas": ", ".join(f"{sigma:.5g}" for sigma in schedule.sigmas.tolist()),
        "grid points": None if schedule.indices is None else ", ".join(map(str, schedule.indices)),
        "predicted cost": schedule.cost,
    }


def notes_of(fitted: Fitted, calls: int) -> list[str]:
    """Return the lines under the table.

    Args:
        fitted: the schedules and how they do.
        calls: of the network for each evaluation.
    """
    lines = []
    none = [str(row["nfe"]) for row in fitted.rows if row["result"] == "no gain"]
    if none:
        lines.append(
            f"no gain at nfe {', '.join(none)}: there the best usual schedule is as good, within "
            "noise"
        )
    lines += [
        f"nfe {schedule.nfe}: sigma {row_of(schedule)['sigmas']}"
        for schedule in fitted.schedules.values()
    ]
    if calls > 1:
        lines.append(f"with guidance each evaluation (nfe) makes {calls} network calls")
    lines += [f"left out: {reason}" for reason in dict.fromkeys(fitted.left_out)]
    lines.append(
        f"errors: mean distance to the fine solution over {len(fitted.judge.latents)} samples "
        f"that chose nothing; warm-up {fitted.seconds[0]:.1f} s, search {fitted.seconds[1]:.1f} s"
    )
    return lines


def fit_sections(fitted: Fitted) -> list[Section]:
    """Return the parts of a report on fitted schedules."""
    names = [key for key in fitted.rows[0] if key not in ("nfe", "schedule", "result")]
    lines = {
        name: {row["nfe"]: row[name] for row in fitted.rows if row.get(name) is not None}
        for name in names
    }
    schedules = {f"nfe {nfe}": schedule for nfe, schedule in fitted.schedules.items()}
    found = list(fitted.schedules.values())
    keys = [(s.grid, s.metric) for s in found if s.grid is not None and s.metric is not None]
    kind, metric = next(iter([*keys, *fitted.warm.costs]))  # of the first path, if there is any
    paths = {
        f"nfe {nfe}": s.indices
        for nfe, s in fitted.schedules.items()
        if s.indices is not None and (s.grid, s.metric) == (kind, metric)
    }
    shown = dict(list(paths.items())[:: max(1, (len(paths) + 2) // 3)])
    return [
        Section(
            "Error against budget",
            "Ours is the thick line. All run with the same solver from the same latents.",
            figure=errors_png({found[0].solver: lines}),
            caption="Mean distance to the fine solution against evaluations of the model",
        ),
        Section(
            "Schedules",
            figure=schedules_png(schedules),
            caption="Noise levels of each budget",
            rows=[row_of(schedule) for schedule in found],
        ),
        Section(
            "Costs",
            f"What one jump costs over the {kind} grid, metric {metric}, as the warm-up says it.",
            figure=costs_png(fitted.warm.costs[kind, metric], fitted.warm.grids[kind], shown),
            caption="Cost of a jump from one noise level to another, and paths through it",
        ),
    ]


def sample_sections(loaded: Loaded, fitted: Fitted, count: int = 10) -> list[Section]:
    """Return pictures of the same latents under several schedules, where samples are images.

    Args:
        loaded: the model.
        fitted: its smallest budget is shown.
        count: of samples.
    """
    if len(loaded.shape) != 3 or loaded.shape[0] not in (1, 3):
        return []
    nfe = min(fitted.schedules)
    schedule, row = fitted.schedules[nfe], next(r for r in fitted.rows if r["nfe"] == nfe)
    steps = schedule.steps - schedule.afs
    usual = fixed_schedules(steps, loaded.sigma_min, loaded.sigma_max)
    best = min(usual, key=lambda name: row[name])
    latents = fitted.judge.latents[:count]
    how = schedule.solver_options
    with torch.no_grad():
        rows = {
            "fine solution": fitted.judge.ends[:count],
            f"ours, nfe {nfe}": sample(loaded.denoiser, latents, schedule.sigmas, **how),
            best: sample(loaded.denoiser, latents, usual[best], **(how | {"afs": False})),
        }
    return [
        Section(
            "Samples",
            f"The same latents: a fine solution, our schedule of {nfe} evaluations, and the best "
            "usual one.",
            figure=samples_png(rows),
            caption="Samples from the same latents under several schedules",
        )
    ]
