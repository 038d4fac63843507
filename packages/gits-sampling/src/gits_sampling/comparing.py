"""What schedules are worth for a model, as a table and a picture; `gits-sampling-compare`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from papercommons.cli import ComputeOptions
from papercommons.files import atomic_path, prepare_out, write_csv
from papercommons.report import Result, Section, describe_device, write_report

from gits_sampling.comparison import Comparison, compare_schedules
from gits_sampling.comparison_columns import SCHEDULES
from gits_sampling.fitting import LIMITS, NOISE
from gits_sampling.opening import batch_of, open_model, settings_of
from gits_sampling.options import PACKAGE, FormOptions, ModelOptions, SearchOptions
from gits_sampling.pictures import errors_of, errors_png, schedules_png


def compare_model(
    model: str,
    budgets: Sequence[int],
    solvers: Sequence[str],
    schedules: Sequence[str] | None,
    eval_samples: int,
    out: str,
    about: ModelOptions,
    search: SearchOptions,
    form: FormOptions,
    run: ComputeOptions,
) -> Result:
    """Compare schedules, write the table with a report, and return the result.

    Args:
        model: see `gits_sampling.loading.load_denoiser`.
        budgets: evaluations of the model.
        solvers: names, with an order or without.
        schedules: names of columns; all but ``refined`` if None.
        eval_samples: samples of the table.
        out: folder of the run.
        about: the model.
        search: the search.
        form: what dpmpp and unipc do.
        run: where and how to compute.

    Raises:
        DataError: the model cannot be loaded.
        ValueError: an unknown name, an argument out of range, or the model gives NaN.
    """
    loaded = open_model(model, about, run)
    columns = list(schedules or (name for name in SCHEDULES if name != "refined"))
    metrics = {"dev", "l2", *(name.split()[-1] for name in columns if name.endswith(" l1"))}
    started = time.perf_counter()
    compared = compare_schedules(
        loaded.denoiser,
        sigma_min=loaded.sigma_min,
        sigma_max=loaded.sigma_max,
        shape=loaded.shape,
        nfes=budgets,
        solvers=solvers,
        schedules=columns,
        own=None if loaded.default is None else loaded.own,
        evaluation_samples=eval_samples,
        noise=NOISE,
        batch=batch_of(loaded, about.batch_size),
        options={"prediction": form.form, "thresholding": form.thresholding},
        metrics=sorted(metrics),
        points=search.teacher_points,
        rho=search.rho,
        teacher=search.teacher,
        teacher_order=search.teacher_order,
        samples=search.warmup,
        held_out=search.held_out,
        seed=run.seed,
        like=loaded.like,
    )
    settings: dict[str, Any] = settings_of(model, about, loaded)
    settings |= {"nfe": ",".join(map(str, budgets)), "solvers": list(solvers)}
    settings |= {"schedules": columns, "eval_samples": eval_samples, "out": out}
    settings |= {**asdict(search), **asdict(form), **run.settings()}
    gains = sum(verdict.result == "gain" for verdict in compared.verdicts)
    result = Result(
        package=PACKAGE,
        command="gits-sampling-compare",
        title=f"{model}: ours gains in {gains} of {len(compared.verdicts)} settings over the best "
        "of the others",
        rows=summary(compared) or compared.table(),
        metrics={
            "gains": gains,
            "settings": len(compared.verdicts),
            "seconds": time.perf_counter() - started,
            "entries": [asdict(entry) for entry in compared.entries],
        },
        settings=settings,
        limits=LIMITS,
        data_hash=compared.about["fingerprint"],
        device=describe_device(loaded.device),
        notes=[
            *(f"left out: {why}" for why in compared.left_out if schedules or ", nfe " in why),
            f"errors: mean distance to the fine solution over {eval_samples} samples used for "
            f"nothing else; a gain is one beyond {NOISE} standard errors",
        ],
    )
    folder = prepare_out(out, settings, overwrite=run.overwrite)
    write_csv(folder / "comparison.csv", [flat(asdict(entry)) for entry in compared.entries])
    result.files["comparison"] = str(folder / "comparison.csv")
    sections = comparison_sections(compared)
    for name, section in zip(("errors", "schedules"), sections, strict=False):
        if section.figure is not None:
            with atomic_path(folder / f"{name}.png") as temporary:
                temporary.write_bytes(section.figure)
    write_report(folder / "report.html", result, sections)
    result.save(folder)
    return result


def summary(compared: Comparison) -> list[dict[str, Any]]:
    """Return a row for each solver and budget: ours beside the best of the others.

    Args:
        compared: of `compare_schedules`.
    """
    return [
        {
            "solver": verdict.solver,
            "nfe": verdict.nfe,
            "ours": verdict.ours,
            "error": verdict.error,
            "best other": verdict.other,
            "its error": verdict.other_error,
            "ratio": verdict.error / verdict.other_error if verdict.other_error else None,
            "result": verdict.result,
        }
        for verdict in compared.verdicts
    ]


def comparison_sections(compared: Comparison) -> list[Section]:
    """Return the parts of a report on a comparison: pictures, and the whole table."""
    first = compared.entries[0]
    levels = {
        entry.schedule: entry.sigmas
        for entry in compared.entries
        if (entry.solver, entry.order, entry.nfe) == (first.solver, first.order, first.nfe)
    }
    return [
        Section(
            "Error against network calls",
            "Thick lines are ours.",
            figure=errors_png(errors_of(compared.entries)),
            caption="Mean distance to the fine solution against network calls",
        ),
        Section(
            "Schedules",
            f"Those of {first.solver} with nfe {first.nfe}.",
            figure=schedules_png(levels),
            caption="Noise levels of each schedule",
        ),
        Section("All errors", "Mean distances; the best schedule is named.", rows=compared.table()),
    ]


def flat(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with its noise levels as one text, for a CSV file."""
    return entry | {"sigmas": " ".join(f"{sigma:.9g}" for sigma in entry["sigmas"])}
