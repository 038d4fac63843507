"""A schedule as diffusers, k-diffusion and ComfyUI read it; `gits-sampling-export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from papercommons.errors import DataError, missing_library
from papercommons.files import write_json, write_text
from papercommons.report import Result

from gits_sampling.fit_report import describe
from gits_sampling.options import PACKAGE
from gits_sampling.schedule import Schedule

LIMITS = "A schedule holds for the model, the solver and the budget that it was fitted to."


def export_schedule(path: str, to: str, model: str | None, end: Any, out: str | None) -> Result:
    """Write a schedule for another tool, and return the result.

    Args:
        path: file of the schedule.
        to: diffusers, kdiffusion or comfyui.
        model: folder of a diffusers pipeline or scheduler, for diffusers.
        end: of kdiffusion, see `Schedule.to_kdiffusion`.
        out: file to write; None: nothing is written.

    Raises:
        DataError: the file is no schedule, or the folder has no scheduler.
        ValueError: the tool cannot hold the schedule.
    """
    schedule = Schedule.load(path)
    if to == "comfyui":
        text = schedule.to_comfyui()
        values: dict[str, Any] = {"sigmas": text}
        notes = [f"for the node ManualSigmas: {text}"]
    elif to == "kdiffusion":
        sigmas = [float(s) for s in np.asarray(schedule.to_kdiffusion(end=end), dtype=np.float32)]
        values = {"sigmas": sigmas}
        notes = ["sigmas: " + ", ".join(f"{s:.6g}" for s in sigmas)]
    else:
        values = diffusers_values(schedule, str(model))
        notes = [f"{name}: {value}" for name, value in values.items()]
        notes.append(
            f"for every scheduler: pipeline.scheduler = Schedule.load({str(path)!r})"
            ".to_diffusers(pipeline.scheduler)"
        )
    result = Result(
        package=PACKAGE,
        command="gits-sampling-export",
        title=f"{describe(schedule)}, {schedule.solver}, {schedule.nfe} evaluations, for {to}",
        rows=[
            {"step": k, "from sigma": first, "to sigma": last}
            for k, (first, last) in enumerate(
                zip(schedule.sigmas[:-1].tolist(), schedule.sigmas[1:].tolist(), strict=True), 1
            )
        ],
        metrics=values,
        settings={"schedule": path, "to": to, "model": model, "end": end, "out": out},
        limits=LIMITS,
        data_hash=schedule.fingerprint,
        device="cpu",
        notes=notes,
    )
    if out is not None:
        if to == "comfyui":
            write_text(Path(out), values["sigmas"] + "\n")
        else:
            write_json(Path(out), values)
        result.files["export"] = out
    return result


def diffusers_values(schedule: Schedule, folder: str) -> dict[str, Any]:
    """Return what diffusers' pipelines take for a schedule, plain types.

    Args:
        schedule: any.
        folder: of a pipeline or scheduler, which says how the model counts time.

    Returns:
        ``sigmas``, K + 1, as ``sigmas=`` of EulerDiscreteScheduler; ``timesteps``, K whole training
        steps, as ``timesteps=`` of DPMSolverMultistepScheduler. For flow models ``sigmas`` are K
        times in (0, 1), as FlowMatchEulerDiscreteScheduler takes them; for EDM models there are no
        timesteps.

    Raises:
        DataError: the folder has no scheduler, or diffusers is not installed.
        ValueError: levels outside the model's range, or equal as whole steps.
    """
    try:
        import diffusers
    except ModuleNotFoundError as error:
        raise missing_library("--to diffusers", "diffusers", "gits-sampling[diffusers]") from error
    from gits_sampling.diffusers_models import scheduler_beside
    from gits_sampling.diffusers_schedulers import vp_timesteps

    scheduler = scheduler_beside(diffusers, Path(folder))
    if scheduler is None:
        raise DataError(f"{folder}: no scheduler_config.json; give the folder of a pipeline")
    levels = schedule.sigmas.numpy()
    name = type(scheduler).__name__
    if name.startswith("FlowMatch"):
        times = (levels / (1 + levels))[:-1]
        return {"scheduler": name, "sigmas": times.tolist()}
    if not hasattr(scheduler, "alphas_cumprod"):
        return {"scheduler": name, "sigmas": levels.tolist()}
    table = scheduler.alphas_cumprod.double().numpy()
    low, high = (((1 - table) / table) ** 0.5)[[0, -1]]
    if levels[0] > 1.001 * high or levels[-2] < low / 1.001:
        raise ValueError(
            f"the schedule runs from sigma {levels[0]:.6g} to {levels[-2]:.6g}, outside the "
            f"model's {high:.6g} to {low:.6g} in {folder}"
        )
    steps = vp_timesteps(scheduler, levels[:-1]).round().astype(int)
    if (np.diff(steps) >= 0).any():
        raise ValueError(
            f"whole training steps {steps.tolist()} have equal ones; use fewer steps, or "
            "Schedule.to_diffusers, which keeps the noise levels themselves"
        )
    return {"scheduler": name, "sigmas": levels.tolist(), "timesteps": steps.tolist()}
