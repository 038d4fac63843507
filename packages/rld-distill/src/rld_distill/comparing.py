"""Several methods, several seeds, one teacher: mean, spread, and a paired test."""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from papercommons.cli import RunOptions
from papercommons.errors import DataError
from papercommons.files import is_first_process, write_csv, write_json, write_text
from papercommons.report import PALETTE, Result, Section, figure_png, format_value, write_report
from papercommons.training import begin_run
from scipy.stats import ttest_rel
from torch import nn

from rld_distill.data import DistillData, open_data
from rld_distill.distill import distill
from rld_distill.evaluation import LIMITS
from rld_distill.methods import complete_options
from rld_distill.options import PACKAGE, DataOptions, RecipeOptions, TeacherOptions
from rld_distill.plans import make_plan, resolve_recipe
from rld_distill.teachers import get_teacher

log = logging.getLogger("papercommons")

GRIDS: dict[str, dict[str, list[float]]] = {  # what --tune tries
    "rld": {"alpha": [1.0, 2.0, 4.0, 8.0], "beta": [2.0, 4.0, 8.0], "temperature": [2.0, 4.0]},
    "dkd": {"alpha": [1.0, 2.0, 4.0, 8.0], "beta": [2.0, 4.0, 8.0], "temperature": [2.0, 4.0]},
    "kd": {"weight": [0.5, 0.9, 2.0, 4.0], "temperature": [1.0, 2.0, 4.0, 8.0]},
    "la": {"temperature": [1.0, 2.0, 4.0, 8.0]},
    "rc": {
        "kd_weight": [0.5, 1.0, 2.0],
        "correction_weight": [0.1, 0.3],
        "temperature": [2.0, 4.0],
    },
    "lr": {"right_weight": [1.0, 2.0, 4.0], "wrong_weight": [0.5, 1.0, 2.0], "eta": [0.6, 0.8]},
    "mlkd": {"weight": [0.1, 0.3, 0.9, 2.0]},
    "nkd": {"gamma": [0.5, 1.0, 1.5, 2.0], "temperature": [1.0, 2.0]},
    "ctkd": {"weight": [0.5, 0.9, 2.0], "span": [10.0, 20.0]},
    "dist": {"beta": [1.0, 2.0, 4.0], "gamma": [1.0, 2.0, 4.0], "temperature": [1.0, 4.0]},
    "ttm": {"weight": [1.0, 4.0, 15.0, 45.0], "gamma": [0.1, 0.2, 0.5]},
    "wttm": {"weight": [1.0, 4.0, 15.0, 45.0], "gamma": [0.1, 0.2, 0.5]},
}


def compare_methods(
    data: str,
    out: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    reference: str,
    student: str | None,
    tune: int,
    teacher: TeacherOptions,
    recipe: RecipeOptions,
    images: DataOptions,
    run: RunOptions,
) -> Result:
    """Train a student per method and seed with one teacher, and return the comparison.

    Args:
        data: see `rld_distill.sources.parse_data`.
        out: folder of all runs and the report.
        methods: names.
        seeds: the same for every method.
        reference: the method that the others are tested against.
        student: the network's name; None takes the preset's.
        tune: settings of each method's weights to try on val; 0 takes the defaults.
        teacher: the teacher.
        recipe: how to train.
        images: how images are read.
        run: how to run.

    Raises:
        DataError: images and teacher cannot be used, or do not fit; no val split to tune on.
    """
    values = resolve_recipe(
        recipe,
        images,
        run,
        student=student,
        teacher=teacher.teacher,
        teacher_epochs=teacher.teacher_epochs,
    )
    settings = {
        "data": data,
        "out": out,
        "methods": list(methods),
        "seeds": list(seeds),
        "reference": reference,
        "tune": tune,
        **asdict(teacher),
        **asdict(images),
        **{name: value for name, value in values.items() if name != "loss_options"},
        **run.settings(),
    }
    folder = begin_run(settings, run)
    read = open_data(
        data,
        images,
        run,
        batch_size=values["batch_size"],
        val_fraction=values["val_fraction"],
    )
    if tune and not read.has_val:
        raise DataError("--tune needs a val split; give --val-fraction 0.1 or a val folder")
    network = get_teacher(teacher, values, read, run, folder)
    results: dict[str, list[dict[str, Any]]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for method in methods:
        chosen[method] = _tune(method, values, read, network, run, folder, tune, seeds[0])
        results[method] = [
            _run_once(
                f"{method}-seed{seed}",
                method,
                chosen[method],
                values,
                read,
                network,
                run,
                folder,
                seed,
            )
            for seed in seeds
        ]
    rows = compare_rows(results, reference, tuned=tune > 0)
    device = next(iter(results.values()))[0]["device"]
    result = Result(
        package=PACKAGE,
        command="rld-distill-compare",
        title=f"{values['teacher']} → {values['student']} on {data}: test accuracy, last epoch",
        rows=rows,
        metrics={
            "left_out": len(read.skipped),
            "accuracy": {
                m: [one["test"]["accuracy"] for one in runs] for m, runs in results.items()
            },
            "teacher_accuracy": next(
                (
                    one["test"]["teacher_accuracy"]
                    for runs in results.values()
                    for one in runs
                    if "teacher_accuracy" in one["test"]
                ),
                None,
            ),
        },
        settings=settings | {"loss_options": chosen},
        limits=LIMITS + " All students share one teacher, so the spread is over students alone.",
        data_hash=read.data_hash,
        device=device,
        notes=notes_of(results, tune, seeds, read),
    )
    if folder is not None and is_first_process():
        write_csv(folder / "comparison.csv", rows)
        write_text(folder / "comparison.md", _markdown(rows))
        result.files |= {"comparison": str(folder / "comparison.md")}
        write_report(folder / "report.html", result, _sections(results))
        result.save(folder)
    return result


def _tune(
    method: str,
    values: dict[str, Any],
    data: DistillData,
    teacher: nn.Module,
    run: RunOptions,
    folder: Path | None,
    budget: int,
    seed: int,
) -> dict[str, Any]:
    """Return the options with the best val accuracy of `budget` settings; the defaults are one."""
    recipe = values.get("loss_options", {}).get(method, {})
    grid = GRIDS.get(method, {})
    if not budget or not grid:
        return recipe
    settings = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    random.Random(0).shuffle(settings)
    defaults = complete_options(method, recipe)
    others = [s for s in settings if any(defaults[name] != value for name, value in s.items())]
    tried = [recipe, *others[: budget - 1]]
    accuracies = [
        _run_once(f"tune/{method}-{i}", method, one, values, data, teacher, run, folder, seed)[
            "val"
        ]["accuracy"]
        for i, one in enumerate(tried)
    ]
    best = accuracies.index(max(accuracies))
    log.info(
        "%s: best of %d settings on val: %s", method, len(tried), tried[best] or "the defaults"
    )
    return tried[best]


def _run_once(
    name: str,
    method: str,
    options: dict[str, Any],
    values: dict[str, Any],
    data: DistillData,
    teacher: nn.Module,
    run: RunOptions,
    folder: Path | None,
    seed: int,
) -> dict[str, Any]:
    """Return test, val, seconds and history of one student, from disk if it is finished there."""
    place = None if folder is None else folder / name
    done = None if place is None else place / "summary.json"
    if done is not None and done.is_file():
        finished: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return finished
    log.info("%s", name)
    begun = place is not None and (place / "last.ckpt").is_file()
    outcome = distill(
        make_plan(method, values, options),
        data,
        teacher,
        run=replace(run, seed=seed, resume="last" if begun else None),
        out=place,
    )
    summary = {
        "test": outcome.test,
        "val": outcome.val,
        "best": outcome.best,
        "seconds": outcome.seconds,
        "seconds_per_epoch": fmean(row["seconds"] for row in outcome.history)
        if outcome.history
        else outcome.seconds,
        "history": outcome.history,
        "device": outcome.device,
    }
    summary = json.loads(json.dumps(summary).replace("NaN", "null"))
    if done is not None and is_first_process():
        write_json(done, summary)
    return summary


def compare_rows(
    results: Mapping[str, Sequence[Mapping[str, Any]]], reference: str, *, tuned: bool
) -> list[dict[str, Any]]:
    """Return one row per method: mean and spread of test accuracy, and the test against another.

    The test is a paired two-sided t-test over seeds. With few seeds it finds only large
    differences; a p-value is not corrected for the number of methods.

    Args:
        results: of each method, one mapping per seed with ``test``, ``best`` and
            ``seconds_per_epoch``.
        reference: the method the others are compared with.
        tuned: whether weights were tuned on val.
    """
    rows = []
    base = [one["test"]["accuracy"] for one in results.get(reference, [])]
    for method, ones in results.items():
        accuracy = [one["test"]["accuracy"] for one in ones]
        best = [one["best"]["accuracy"] for one in ones if one["best"]]
        row: dict[str, Any] = {
            "method": method,
            "seeds": len(ones),
            "accuracy": fmean(accuracy),
            "std": stdev(accuracy) if len(accuracy) > 1 else None,
            "best on val": fmean(best) if best else None,
            "ece": fmean(one["test"]["ece"] for one in ones),
            "weights": "tuned" if tuned and method in GRIDS else "default",
            "s/epoch": round(fmean(one["seconds_per_epoch"] for one in ones), 2),
        }
        if base:
            differences = [a - b for a, b in zip(accuracy, base, strict=True)]
            row[f"minus {reference}"] = fmean(differences) if method != reference else None
            spread = len(differences) > 1 and max(differences) - min(differences) > 1e-12
            row["p"] = float(ttest_rel(accuracy, base).pvalue) if spread else None
        rows.append(row)
    return rows


def notes_of(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    tune: int,
    seeds: Sequence[int],
    data: DistillData,
) -> list[str]:
    """Return what must be known beside the table, a line each.

    Args:
        results: of each method, see `compare_rows`.
        tune: settings tried of each method; 0 took the defaults.
        seeds: of the students.
        data: their images.
    """
    test = len(data.splits.test)
    notes = [f"{len(seeds)} seeds, {test:,} test images: one image is {1 / test:.4f}."]
    if len(seeds) < 3:
        notes.append("Fewer than 3 seeds: differences say little.")
    notes.append(
        f"Weights of each method: best of {tune} settings on val (the defaults are one of them)."
        if tune
        else "Weights are each method's defaults, untuned (--tune N tunes all with equal budget)."
    )
    wrong = [
        one["history"][-1]["train/teacher_wrong"]
        for runs in results.values()
        for one in runs
        if one["history"] and "train/teacher_wrong" in one["history"][-1]
    ]
    if wrong:
        notes.append(
            f"The teacher is wrong on {fmean(wrong):.2%} of the training images (last epoch's "
            "views); where that is 0, RLD and DKD with equal weights are the same."
        )
    return notes


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(format_value(row[n]) for n in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _sections(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Section]:
    def draw(figure: Any) -> None:
        dots, curves = figure.subplots(1, 2, width_ratios=(1, 1.2))
        for place, (method, ones) in enumerate(results.items()):
            colour = PALETTE[place % len(PALETTE)]
            accuracy = [one["test"]["accuracy"] for one in ones]
            dots.plot([place] * len(accuracy), accuracy, "o", color=colour, alpha=0.55, ms=6)
            dots.plot([place - 0.25, place + 0.25], [fmean(accuracy)] * 2, color=colour, lw=2.5)
            name = "val/accuracy" if "val/accuracy" in ones[0]["history"][-1] else "train/accuracy"
            epochs = zip(*([row[name] for row in one["history"]] for one in ones), strict=True)
            means = [fmean(values) for values in epochs]
            curves.plot(range(1, len(means) + 1), means, label=method, color=colour)
            curves.set(title=f"{name}, mean over seeds", xlabel="epoch")
        dots.set_xticks(range(len(results)), list(results))
        dots.set(title="test accuracy, last epoch", xlim=(-0.6, len(results) - 0.4))
        curves.legend()

    return [
        Section(
            "Methods side by side",
            figure=figure_png(draw),
            caption="Left: every dot is a student (one seed), the bar their mean. Right: accuracy "
            "while training.",
        )
    ]
