"""What `nlran-explain` does: which heat map finds lesions, and whether it means anything."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from papercommons.cli import DeviceOptions, track
from papercommons.errors import DataError, reason
from papercommons.files import prepare_out, write_csv
from papercommons.report import PALETTE, Result, Section, describe_device, figure_png, write_report
from papercommons.training import make_trainer

from nlran.explaining import Explained, explain_scan
from nlran.judging import PACKAGE
from nlran.localization import (
    SCORES,
    centre_of_lung_map,
    localization,
    random_map,
    slice_auc,
)
from nlran.prepare import lung_mask, read_mask, to_scan_grid
from nlran.sanity import deletion_insertion, randomized, rank_correlation
from nlran.saved import RESEARCH_USE, load_network
from nlran.volumes import Volume

log = logging.getLogger("papercommons")

LIMITS = (
    f"{RESEARCH_USE} A map that lies on a lesion does not prove that the answer rests on it; a "
    "random map and the middle of the lungs are the bars to clear. Scores are means over scans: "
    "lesions of one patient are not independent."
)
SANITY = ("like untrained", "deletion", "insertion")


def explain_scans(
    scans: Sequence[Path],
    names: Sequence[str],
    checkpoint: str,
    masks: str | None,
    slices: str | None,
    out: str | None,
    *,
    steps: int,
    skip_bad: bool,
    run: DeviceOptions,
) -> Result:
    """Score every map of a network on some scans and return the table.

    Args:
        scans: files and folders.
        names: short name of each, as masks and slice labels use it.
        checkpoint: folder of a run, or of a saved network.
        masks: folder of lesion masks, NAME.* of any format that scans have.
        slices: JSON file: name of a scan -> numbers of its infected slices along the file's third
            axis (or ``{"infected_slices_k": [...]}``).
        out: folder for result.json, scores.csv and report.html; None writes nothing.
        steps: of the deletion and insertion curves; 0 leaves these out.
        skip_bad: leave out scans that cannot be used.
        run: where and how to compute.

    Raises:
        DataError: no scan can be used, or a file is not as described.
    """
    network, config = load_network(checkpoint)
    labels = {} if slices is None else read_slice_labels(slices)
    found_masks = {} if masks is None else _find_masks(Path(masks), names)
    settings: dict[str, Any] = {
        "scans": [str(s) for s in scans],
        "checkpoint": checkpoint,
        "masks": masks,
    }
    settings |= {"slices": slices, "out": out, "steps": steps, "skip_bad": skip_bad}
    settings |= run.settings()
    folder = None
    if out is not None:
        kept = {name: value for name, value in settings.items() if value is not None}
        folder = prepare_out(out, kept, overwrite=run.overwrite)
    device = make_trainer(run).strategy.root_device
    network.to(device)
    untrained = randomized(network, run.seed)
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    for number, (scan, name) in enumerate(track(list(zip(scans, names, strict=True)), "scans")):
        try:
            found = explain_scan(network, scan, config["preparation"], device=device)
            mask = None
            if name in found_masks:
                mask = read_mask(found_masks[name], found.volume)
        except DataError as error:
            if not skip_bad:
                raise
            log.warning("left out: %s", error)
            bad.append(str(error))
            continue
        infected = None
        if name in labels:
            infected = _slices_in_array_order(labels[name], found.volume, name)
        rows += _score_scan(
            network, untrained, found, scan, config, mask, infected, steps, run.seed + number
        )
    if not rows:
        raise DataError(f"no scan could be used; {bad[0]}")
    table = _means(rows)
    scored = len({row["scan"] for row in rows})
    result = Result(
        package=PACKAGE,
        command="nlran-explain",
        title=f"Heat maps of {config['model']} on {scored} scans, "
        f"{len(found_masks)} with lesion masks, {len(labels)} with slice labels",
        rows=table,
        metrics={
            f"{row['map']}: {key}": value
            for row in table
            for key, value in row.items()
            if key != "map"
        },
        settings=settings,
        limits=LIMITS,
        device=describe_device(device),
        notes=[
            RESEARCH_USE,
            "like untrained: rank correlation with the same network's map before training; near 1 "
            "means that the map shows the scan rather than what was learnt",
            *(f"left out: {line}" for line in bad),
        ],
    )
    if folder is not None:
        write_csv(folder / "scores.csv", rows)
        result.files["scores"] = str(folder / "scores.csv")
        write_report(folder / "report.html", result, [_section(table)])
        result.save(folder)
    return result


def _score_scan(
    network: Any,
    untrained: Any,
    found: Explained,
    scan: Path,
    config: Mapping[str, Any],
    mask: np.ndarray | None,
    infected: np.ndarray | None,
    steps: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return one row per map."""
    volume = found.volume
    shape = found.grid.grid_shape
    maps: dict[str, np.ndarray] = {kind: heat for kind, heat in found.maps.items()}
    maps["random"] = random_map(shape, seed)
    other = explain_scan(
        untrained, scan, config["preparation"], list(found.maps), device=found.inputs.device
    )
    answer = int(found.logits.argmax())
    depth = centre_of_lung_map(
        lung_mask(volume.array, volume.spacing, volume.units), volume.spacing
    )
    rows = []
    for name, heat in (*maps.items(), ("centre of lung", None)):
        row: dict[str, Any] = {"scan": str(scan), "map": name}
        on_scan = depth if heat is None else to_scan_grid(heat, found.grid)
        if mask is not None:
            row |= localization(on_scan, mask)
        if infected is not None:
            row["slice_auc"] = slice_auc(on_scan, infected)
        if name in other.maps:
            row[SANITY[0]] = rank_correlation(
                torch.from_numpy(maps[name]),
                torch.from_numpy(other.maps[name]),  # type: ignore[index]
            )
        if steps and heat is not None and config["preparation"].size[0]:
            deleted, inserted = deletion_insertion(
                network, found.inputs, torch.from_numpy(heat), answer, steps=steps
            )
            row |= {SANITY[1]: deleted, SANITY[2]: inserted}
        rows.append(row)
    return rows


def _means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean of every score over the scans that have it, one row per map."""
    keys = [k for k in (*SCORES, "slice_auc", *SANITY) if any(k in row for row in rows)]
    table = []
    for name in dict.fromkeys(row["map"] for row in rows):
        of_map = [row for row in rows if row["map"] == name]
        means: dict[str, Any] = {"map": name}
        for key in keys:
            values = [row[key] for row in of_map if not isnan(row.get(key, nan))]
            means[key] = fmean(values) if values else None
        table.append(means)
    return table


def read_slice_labels(path: str | Path) -> dict[str, list[int]]:
    """Return infected slices by name of the scan.

    Args:
        path: JSON: name -> list of numbers, or -> ``{"infected_slices_k": list}``; scans without
            a list have no labels.

    Raises:
        DataError: missing, no JSON, or not as described.
    """
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable JSON ({reason(error)})") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: expected a JSON object: name of a scan -> infected slices")
    labels: dict[str, list[int]] = {}
    for name, entry in table.items():
        listed = entry.get("infected_slices_k") if isinstance(entry, dict) else entry
        if listed is None:
            continue
        if not isinstance(listed, list) or not all(
            isinstance(k, int) and not isinstance(k, bool) and k >= 0 for k in listed
        ):
            raise DataError(f"{path}: {name}: expected a list of slice numbers >= 0")
        labels[name] = listed
    return labels


def _slices_in_array_order(listed: Sequence[int], volume: Volume, name: str) -> np.ndarray:
    """Return bool (D,) for numbers along the axis of the file that became D."""
    depth = volume.array.shape[0]
    if listed and max(listed) >= depth:
        raise DataError(f"{name}: infected slice {max(listed)}, but the scan has {depth} slices")
    infected = np.zeros(depth, dtype=bool)
    infected[list(listed)] = True
    return infected[::-1].copy() if volume.order[0][1] else infected


def _find_masks(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    from nlran.predicting import name_outputs
    from nlran.volumes import volume_kind

    below = [p for p in sorted(folder.rglob("*")) if volume_kind(p) is not None]
    by_name = {name_outputs([path])[0]: path for path in below}
    found = {name: by_name[name] for name in names if name in by_name}
    if not found:
        raise DataError(
            f"{folder}: no mask is named like a scan (scans: {', '.join(names[:3])}, ...)"
        )
    return found


def _section(table: Sequence[Mapping[str, Any]]) -> Section:
    keys = [k for k in (*SCORES, "slice_auc", *SANITY) if table[0].get(k) is not None]
    keys = keys or [k for k in table[0] if k != "map"]

    def draw(figure: Any) -> None:
        for axes, key in zip(
            figure.subplots(1, len(keys), squeeze=False, sharey=True)[0], keys, strict=True
        ):
            values = [row.get(key) or 0.0 for row in table]
            controls = ("trunk", "gradcam-stage1", "random", "centre of lung")
            colors = [PALETTE[7] if row["map"] in controls else PALETTE[0] for row in table]
            axes.barh([row["map"] for row in table], values, color=colors)
            axes.set_title(key.replace("_", " "))
            axes.invert_yaxis()

    return Section(
        "Maps side by side",
        figure=figure_png(draw, width=2.2 * len(keys) + 1.5, height=3.2),
        caption="Means over scans. Grey: controls that owe nothing to the attention mask, and the "
        "two trivial maps.",
    )
