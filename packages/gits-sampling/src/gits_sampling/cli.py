"""The commands of gits-sampling: one typed function each; heavy imports wait for cheap checks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least
from papercommons.cli import ComputeOptions, RunOptions, program
from papercommons.errors import DataError
from papercommons.files import check_file_out, check_out
from papercommons.report import Result

from gits_sampling.options import (
    DataOptions,
    FormOptions,
    Grid,
    Metric,
    ModelOptions,
    NetworkOptions,
    RecipeOptions,
    SearchOptions,
    Solver,
    budgets,
    check_levels,
    check_model,
    check_schedule_file,
    coefficient,
    numbers,
    own_schedule_file,
    schedule_name,
)


def fit(
    *,
    model: str,
    nfe: str | None = None,
    solver: Solver = "ipndm",
    order: int | None = None,
    coeff: str = "auto",
    metric: Metric | None = None,
    grid: Grid | None = None,
    afs: bool = False,
    refine: bool = False,
    out: str = "runs/gits-sampling-fit",
    about: ModelOptions = ModelOptions(),
    search: SearchOptions = SearchOptions(),
    form: FormOptions = FormOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Find the best schedule of every budget for a model and a solver, from one warm-up.

    Args:
        model: digits-empirical, digits-gauss10, a diffusers folder, the --out folder of
            gits-sampling-train, a checkpoint, or package.module:factory.
        nfe: budgets, evaluations of the model: 4-10, 4-10:2 or 4,6,8 (default: 4-10, even ones for
            heun and dpm).
        solver: that will sample.
        order: its order; its highest if not given.
        coeff: auto (tries 0.8 to 1.3, all grids and metrics, and the usual schedules on held-out
            samples), or a number: the paper has 1.15 for pixels and 1.20 for Stable Diffusion.
        metric: of the costs; with --coeff auto only this one, else dev if not given.
        grid: of the teacher; with --coeff auto only this one, else polynomial if not given.
        afs: add an analytical first step where it gains.
        refine: then move the noise levels off the grid where it gains.
        out: new folder for SOLVER-nfeN.json, pictures, result.json and report.html.
        about: the model.
        search: the search.
        form: what dpmpp and unipc do.
        run: where and how to compute.
    """
    check_model(model)
    wanted = budgets(nfe, solver, search.teacher_points)
    weight = coefficient(coeff)
    if afs and solver in ("heun", "dpm"):
        raise ValueError(f"--afs is for solvers of one call a step; {solver} would cost one more")
    if form.thresholding and solver not in ("dpmpp", "unipc"):
        raise ValueError(f"--thresholding is for dpmpp and unipc, not for {solver}")
    check_out(out, overwrite=run.overwrite, keep=[model, about.prompts_file])
    from gits_sampling.fitting import fit_model

    return fit_model(
        model,
        wanted,
        solver,
        order,
        weight,
        metric,
        grid,
        afs,
        refine,
        out,
        about,
        search,
        form,
        run,
    )


def sample(
    *,
    model: str,
    schedule: str | None = None,
    sigmas: list[float] | None = None,
    solver: Solver | None = None,
    order: int | None = None,
    seeds: str = "0-63",
    save: Literal["png", "npz"] | None = None,
    denoise_to_zero: bool | None = None,
    force: bool = False,
    out: str = "runs/gits-sampling-sample",
    about: ModelOptions = ModelOptions(),
    form: FormOptions = FormOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Sample with a fitted schedule, or with noise levels of your own.

    Args:
        model: see gits-sampling-fit.
        schedule: file of gits-sampling-fit; the one that the model carries if neither this nor
            --sigmas is given.
        sigmas: noise levels, decreasing, e.g. 80,10.98,3.88,1.58,0.57,0.17,0.002.
        solver: the schedule's if not given; ipndm with --sigmas.
        order: the schedule's if not given; with --sigmas or another --solver its highest.
        seeds: one per sample: 0-63 or 1,5,7; a sample follows from its own alone.
        save: png (one file per sample) or npz (all samples as float32); png for images if not
            given.
        denoise_to_zero: denoise the end once more, one call more; the schedule's if not given.
        force: use a schedule that was fitted to another model.
        out: new folder for the samples, grid.png, result.json and report.html.
        about: the model.
        form: what dpmpp and unipc do, with --sigmas.
        run: where and how to compute.
    """
    check_model(model)
    if schedule is not None and sigmas is not None:
        raise ValueError("--schedule and --sigmas exclude each other; give one")
    if schedule is not None:
        check_schedule_file(schedule)
    if sigmas is not None:
        check_levels(sigmas)
    if schedule is None and sigmas is None:
        own_schedule_file(model)
    chosen = numbers(seeds, "--seeds")
    if max(chosen) >= 2**32:
        raise ValueError(f"--seeds must be < 2^32, got {max(chosen)}")
    check_out(out, overwrite=run.overwrite, keep=[model, schedule, about.prompts_file])
    from gits_sampling.sampling import sample_model

    return sample_model(
        model,
        schedule,
        sigmas,
        solver,
        order,
        chosen,
        save,
        denoise_to_zero,
        force,
        out,
        about,
        form,
        run,
    )


def compare(
    *,
    model: str,
    nfe: str = "4,5,6,8,10",
    solvers: list[str] = ["euler", "ipndm", "dpmpp", "unipc"],
    schedules: list[str] | None = None,
    eval_samples: int = 256,
    out: str = "runs/gits-sampling-compare",
    about: ModelOptions = ModelOptions(),
    search: SearchOptions = SearchOptions(),
    form: FormOptions = FormOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Compare schedules for a model on samples that were used for nothing else.

    Args:
        model: see gits-sampling-fit.
        nfe: budgets, evaluations of the model; odd ones are left out for heun and dpm.
        solvers: with the order where it is not the highest: euler,ipndm,dpmpp-2.
        schedules: poly7, logsnr, uniform1, uniform2, ays-sd, ays-sdxl, ays-svd, own (the model's
            default), gits-1.0, gits-1.15-l2, auto, refined (slow); all but refined if not given,
            as far as the model has them.
        eval_samples: samples that the table is made of.
        out: new folder for comparison.csv, pictures, result.json and report.html.
        about: the model.
        search: the search.
        form: what dpmpp and unipc do.
        run: where and how to compute.
    """
    check_model(model)
    wanted = numbers(nfe, "--nfe", least=1)
    if max(wanted) > search.teacher_points - 1:
        raise ValueError(
            f"--nfe {max(wanted)} needs as many steps and a grid of {search.teacher_points} points "
            f"has {search.teacher_points - 1}; take fewer, or more --teacher-points"
        )
    check_at_least(2, eval_samples=eval_samples)
    names = None if schedules is None else [schedule_name(name) for name in schedules]
    asked = [name.strip().replace("-", " ") for name in solvers]
    check_out(out, overwrite=run.overwrite, keep=[model, about.prompts_file])
    from gits_sampling.comparing import compare_model

    return compare_model(model, wanted, asked, names, eval_samples, out, about, search, form, run)


def analyze(
    *,
    model: str,
    points: int = 101,
    samples: int = 64,
    curvature_points: int = 1001,
    window: int = 101,
    data: str | None = None,
    out: str = "runs/gits-sampling-analyze",
    about: ModelOptions = ModelOptions(),
    run: ComputeOptions = ComputeOptions(),
) -> Result:
    """Measure the geometry of a model's sampling trajectories, and draw it.

    Args:
        model: see gits-sampling-fit.
        points: of the trajectories (Euler, polynomial grid).
        samples: trajectories.
        curvature_points: of those for curvature and torsion, even in sigma, of at most 16 samples;
            0 leaves them out.
        window: points of a local fit for curvature and torsion, odd.
        data: training images (digits, a folder or an .npz file): how far the model is from the
            optimal denoiser of these.
        out: new folder for stats.npz, pictures, result.json and report.html.
        about: the model.
        run: where and how to compute.
    """
    check_model(model)
    check_at_least(7, points=points)
    check_at_least(1, samples=samples)
    if window < 7 or window % 2 == 0:
        raise ValueError(f"--window must be odd and >= 7, got {window}")
    if curvature_points and curvature_points < window:
        raise ValueError(
            f"--curvature-points must be 0 or at least the --window of {window}, "
            f"got {curvature_points}"
        )
    if data is not None and data != "digits" and not Path(data).exists():
        raise DataError(f"{data}: no such folder or file; give digits, a folder or an .npz file")
    check_out(out, overwrite=run.overwrite, keep=[model, data, about.prompts_file])
    from gits_sampling.analyzing import analyze_model

    return analyze_model(model, points, samples, curvature_points, window, data, out, about, run)


def export(
    *,
    schedule: str,
    to: Literal["diffusers", "kdiffusion", "comfyui"],
    model: str | None = None,
    end: Literal["append", "replace", "keep"] = "append",
    out: str | None = None,
    overwrite: bool = False,
) -> Result:
    """Write a schedule as other tools read it.

    Args:
        schedule: file of gits-sampling-fit.
        to: diffusers (sigmas, and timesteps of the model's own scale), kdiffusion (sigmas) or
            comfyui (text for its node ManualSigmas).
        model: folder of the diffusers pipeline or scheduler; for --to diffusers.
        end: of kdiffusion: append a 0 (one call more), replace the last sigma by it, or keep it.
        out: file to write, .json, or .txt for comfyui; it is only printed if not given.
        overwrite: replace the file if it exists.
    """
    check_schedule_file(schedule)
    if to == "diffusers" and model is None:
        raise ValueError("--to diffusers needs --model, a pipeline's folder: timesteps are its own")
    if to != "diffusers" and model is not None:
        raise ValueError(f"--model is for --to diffusers, not for {to}")
    if end != "append" and to != "kdiffusion":
        raise ValueError(f"--end is for --to kdiffusion, not for {to}")
    if model is not None and not Path(model).is_dir():
        raise DataError(f"{model}: no such folder; give that of a diffusers pipeline")
    suffix = ".txt" if to == "comfyui" else ".json"
    if out is not None and Path(out).suffix != suffix:
        raise ValueError(f"--out must end in {suffix} for {to}, got {out}")
    if out is not None:
        check_file_out(out, overwrite=overwrite, keep=[schedule, model])
    from gits_sampling.exporting import export_schedule

    return export_schedule(schedule, to, model, end, out)


def train(
    *,
    data: str,
    nfe: str | None = None,
    solver: Solver = "ipndm",
    out: str = "runs/gits-sampling",
    images: DataOptions = DataOptions(),
    network: NetworkOptions = NetworkOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    search: SearchOptions = SearchOptions(),
    run: RunOptions = RunOptions(),
) -> Result:
    """Train a small diffusion model (EDM), and find its schedules.

    Args:
        data: digits (scikit-learn's, 8 x 8), a folder of images (with or without a sub-folder per
            class), or an .npz file.
        nfe: also find schedules of these budgets, e.g. 4-10, see gits-sampling-fit; none if not
            given.
        solver: of these.
        out: new folder for checkpoints, metrics.csv, export/, schedules, samples, result.json and
            report.html.
        images: how they are read.
        network: what is trained.
        recipe: how it is trained.
        search: the search for schedules.
        run: how to run.
    """
    if data != "digits" and not Path(data).exists():
        raise DataError(f"{data}: no such folder or file; give digits, a folder or an .npz file")
    wanted = [] if nfe is None else budgets(nfe, solver, search.teacher_points)
    check_out(out, resume=run.resume, overwrite=run.overwrite, go_on="--resume last", keep=[data])
    from gits_sampling.training import train_network

    return train_network(data, wanted, solver, out, images, network, recipe, search, run)


main_fit = program(fit, "gits-sampling-fit")
main_sample = program(sample, "gits-sampling-sample")
main_compare = program(compare, "gits-sampling-compare")
main_analyze = program(analyze, "gits-sampling-analyze")
main_export = program(export, "gits-sampling-export")
main_train = program(train, "gits-sampling-train")
