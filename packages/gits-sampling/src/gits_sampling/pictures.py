"""Pictures of schedules, costs and errors, as PNG bytes in the house's look.

Axes over noise levels are logarithmic and run as sampling does, from sigma_max on the left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from papercommons.report import PALETTE, figure_png
from torch import Tensor

from gits_sampling.axes import as_array, log_axis, plain_number, sigma_axis
from gits_sampling.comparison_columns import is_ours
from gits_sampling.schedule import Schedule

if TYPE_CHECKING:
    from gits_sampling.comparison import Entry


def schedules_png(schedules: Mapping[str, Schedule | Tensor | Sequence[float]]) -> bytes:
    """Return a picture of schedules, a line each: every dot is a noise level.

    Args:
        schedules: label -> schedule, or its sigmas (K + 1,); a last sigma of 0 is left out.

    Raises:
        ValueError: no schedules, or one without a sigma above 0.
    """
    if not schedules:
        raise ValueError("schedules must not be empty")
    levels = {
        label: as_array(value.sigmas if isinstance(value, Schedule) else value)
        for label, value in schedules.items()
    }
    for label, sigmas in levels.items():
        if sigmas.ndim != 1 or not (sigmas > 0).any():
            raise ValueError(f"sigmas of {label} must be (n,) and above 0, got {sigmas.tolist()}")

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for row, sigmas in enumerate(levels.values()):
            shown = sigmas[sigmas > 0]
            colour = PALETTE[row % len(PALETTE)]
            axes.plot(shown, np.full(len(shown), row), color=colour, alpha=0.4, lw=1)
            axes.plot(shown, np.full(len(shown), row), "o", color=colour, ms=5)
            if len(shown) < len(sigmas):
                axes.annotate(
                    "to 0", (shown[-1], row), (8, 0), textcoords="offset points", va="center"
                )
        axes.set_yticks(range(len(levels)), list(levels))
        axes.set_ylim(len(levels) - 0.5, -0.5)
        sigma_axis(axes)

    return figure_png(draw, width=8.0, height=1.1 + 0.38 * len(levels))


def errors_of(entries: Iterable[Entry]) -> dict[str, dict[str, dict[int, float]]]:
    """Return a comparison's errors as `errors_png` takes them.

    Args:
        entries: of `compare_schedules`.
    """
    errors: dict[str, dict[str, dict[int, float]]] = {}
    for entry in entries:
        lines = errors.setdefault(f"{entry.solver} {entry.order}", {})
        lines.setdefault(entry.schedule, {})[entry.calls] = entry.error
    return errors


def errors_png(
    errors: Mapping[str, Mapping[str, Mapping[int, float]]],
    *,
    ylabel: str = "mean distance to the fine solution",
) -> bytes:
    """Return error against network calls, a panel per solver and a line per schedule.

    Lines of this package's schedules (``ours``, `gits_sampling.comparison_columns.is_ours`) are
    whole and thick.

    Args:
        errors: solver -> schedule -> network calls -> error, > 0 to be seen.
        ylabel: what the error is.

    Raises:
        ValueError: no errors.
    """
    if not errors or not all(errors.values()):
        raise ValueError("errors must hold a schedule for every solver, got none")
    names = list(dict.fromkeys(name for lines in errors.values() for name in lines))

    def draw(figure: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        panels = figure.subplots(1, len(errors), squeeze=False, sharey=True)[0]
        for axes, (solver, lines) in zip(panels, errors.items(), strict=True):
            for name, values in lines.items():
                place = names.index(name)
                ours = name == "ours" or is_ours(name)
                calls = sorted(values)
                axes.plot(
                    calls,
                    [values[k] for k in calls],
                    color=PALETTE[place % len(PALETTE)],
                    marker="osD"[place // len(PALETTE) % 3],  # where colours come again
                    ms=4,
                    lw=2.2 if ours else 1.2,
                    ls="-" if ours else "--",
                    label=name,
                )
            axes.set(title=solver, xlabel="network calls")
            log_axis(axes.yaxis, "log", label_minor=True)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_ylabel(ylabel)
        handles = {
            label: handle
            for axes in panels
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=int(width / 1.5)
        )

    width = max(6.0, 3.4 * len(errors))
    return figure_png(draw, width=width, height=4.2)


def costs_png(
    cost: Tensor, sigmas: Tensor, paths: Mapping[str, Sequence[int] | Tensor] | None = None
) -> bytes:
    """Return the cost matrix, from row i to column j, with paths: each dot is a step.

    Args:
        cost: upper triangle, shape (N, N).
        sigmas: of the grid, shape (N,).
        paths: label -> indices of its points.

    Raises:
        ValueError: the shapes do not match, or a path leaves the grid.
    """
    count = len(sigmas)
    if count < 2 or sigmas.ndim != 1 or cost.shape != (count, count):
        raise ValueError(
            "cost must be (N, N) and sigmas (N,) with N >= 2, "
            f"got {tuple(cost.shape)} and {tuple(sigmas.shape)}"
        )
    steps = {label: as_array(path).astype(int) for label, path in (paths or {}).items()}
    for label, path in steps.items():
        if len(path) < 2 or path.min() < 0 or path.max() >= count:
            raise ValueError(f"path {label} must be points 0 to {count - 1}, got {path.tolist()}")

    def draw(figure: Any) -> None:
        from matplotlib.colors import SymLogNorm

        axes = figure.subplots()
        values = np.where(np.triu(np.ones((count, count), bool), 1), as_array(cost), np.nan)
        bound = float(np.nanmax(np.abs(values))) or 1.0
        signed = bool((values < -1e-3 * bound).any())  # smaller ones are white anyway
        norm = SymLogNorm(1e-3 * bound, vmin=-bound if signed else 0.0, vmax=bound, base=10)
        picture = axes.imshow(values, cmap="RdBu_r" if signed else "Blues", norm=norm)
        bar = figure.colorbar(picture, ax=axes, label="cost of the jump", shrink=0.8)
        bar.formatter = plain_number
        bar.update_ticks()
        for number, (label, path) in enumerate(steps.items()):
            colour = PALETTE[(number + 1) % len(PALETTE)]
            # down the diagonal: across to the next point, then back down to it
            across, down = np.repeat(path, 2)[1:], np.repeat(path, 2)[:-1]
            axes.plot(across, down, color=colour, lw=1.2)
            axes.plot(path[1:], path[:-1], "o", color=colour, ms=5, label=label)
        places = np.linspace(0, count - 1, min(count, 7)).round().astype(int)
        words = [f"{float(sigmas[k]):.3g}" for k in places]
        axes.set_xticks(places, words, rotation=45)
        axes.set_yticks(places, words)
        axes.set(
            xlabel="to sigma",
            ylabel="from sigma",
            title="Costs" + " and cheapest paths" * bool(steps),
        )
        axes.grid(visible=False)
        if steps:
            axes.legend(loc="lower left")

    return figure_png(draw, width=6.2, height=5.2)
