"""What `nlran-explain` does: which heat map finds lesions, and whether it means anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from papercommons.cli import ComputeOptions, track
from papercommons.data.defects import LeftOut
from papercommons.data.sampling import mix_seeds
from papercommons.devices import autocast, compute_device
from papercommons.errors import DataError, reason
from papercommons.files import hash_files, prepare_out, write_csv
from papercommons.report import PALETTE, Result, Section, describe_device, figure_png, write_report

from nlran.content import scan_files
from nlran.explanation import (
    Explained,
    check_lung_mask,
    explain_inputs,
    explain_scan,
    lung_mask_of,
)
from nlran.layouts import find_scan_files
from nlran.localization import SCORES, centre_of_lung_map, localization, random_map, slice_auc
from nlran.masks import bare_name, find_mask
from nlran.options import PACKAGE, ReadingOptions
from nlran.pictures import slice_names
from nlran.preparation import lung_mask, read_mask, to_scan_grid
from nlran.sanity import deletion_insertion, rank_correlation, untrained_like
from nlran.saved import RESEARCH_USE, load_network
from nlran.volumes import Volume

LIMITS = (
    f"{RESEARCH_USE} A map that lies on a lesion does not prove that the answer rests on it; a "
    "random map and the middle of the lungs are the bars to clear. Scores are means over scans: "
    "lesions of one patient are not independent."
)
EXPLAINED = {
    "pointing": "share of scans whose hottest voxel lies in a lesion; higher is better",
    "top_k_iou": "IoU of the lesions with as many hottest voxels; higher is better",
    "energy_inside": "share of the map's sum that lies in lesions; higher is better",
    "average_precision": "of the map as a classifier of voxels; higher is better",
    "slice_auc": "AUC of the map's mean per slice for infected slices; 0.5 is chance",
    "like_untrained": "rank correlation with the map of a new network of the same kind; near 1 "
    "means that the map shows the scan rather than what was learnt",
    "deletion": "mean probability of the answer while the hottest voxels are blurred; lower is "
    "better, compare with random",
    "insertion": "mean probability while they are brought back first; higher is better",
}
SANITY = ("like_untrained", "deletion", "insertion")


def explain_scans(
    places: Sequence[str],
    checkpoint: str,
    masks: str | None,
    slices: str | None,
    out: str | None,
    steps: int,
    reading: ReadingOptions,
    run: ComputeOptions,
) -> Result:
    """Score every map of a network on some scans and return the table.

    Args:
        places: scans, or folders of scans.
        checkpoint: folder of a run, or of a saved network.
        masks: folder of lesion masks, see `nlran.masks.find_mask`.
        slices: see `read_slice_labels`.
        out: folder for result.json, scores.csv and report.html; None writes nothing.
        steps: of the deletion and insertion curves; 0 leaves these out.
        reading: how scans are read.
        run: where and how to compute.

    Raises:
        DataError: no scan can be used, or a file is not as described.
    """
    network, config = load_network(checkpoint)
    preparation = config["preparation"]
    scans = find_scan_files(places)
    check_lung_mask(reading, len(scans))
    labels = {} if slices is None else _labels_of_scans(slices, [name for _, name in scans])
    lesions = {name: None if masks is None else find_mask(masks, name) for _, name in scans}
    if masks is not None and not any(lesions.values()):
        raise DataError(f"{masks}: no mask is named like a scan, such as {scans[0][1]}")
    settings: dict[str, Any] = {
        "scans": list(places),
        "checkpoint": checkpoint,
        "masks": masks,
        "slices": slices,
    }
    settings |= {"out": out, "steps": steps, **asdict(reading), **run.settings()}
    folder = None if out is None else prepare_out(out, settings, overwrite=run.overwrite)
    device = compute_device(run)
    network.to(device)
    untrained = untrained_like(config, seed=run.seed).to(device)
    rows: list[dict[str, Any]] = []
    left_out = LeftOut(reading.skip_bad)
    for number, (scan, name) in enumerate(track(scans, "scans")):
        with left_out.noting():
            found = explain_scan(
                network,
                scan,
                preparation,
                device=device,
                autocast=autocast(device, run.precision),
                reading=reading,
                mask=lung_mask_of(name, reading),
            )
            lesion = infected = None
            if (lesion_file := lesions[name]) is not None:
                lesion = read_mask(lesion_file, found.volume, may_be_empty=True)
            if name in labels:
                infected = infected_slices(labels[name], found.volume, name)
            context = autocast(device, run.precision)
            _, of_untrained = explain_inputs(untrained, found.inputs, preparation, autocast=context)
            found.maps["random"] = random_map(found.grid.grid_shape, mix_seeds(run.seed, number))
            scores = _score_scan(found, of_untrained, lesion, infected)
            if steps and preparation.size[0]:
                for row in scores[:-1]:
                    row |= _rests_on(network, found, row["map"], steps)
            rows += [{"scan": name} | row for row in scores]
    left_out.check_any(len(rows), "scans")
    table = _means(rows)
    scored = len({row["scan"] for row in rows})
    with_lesions = sum(path is not None for path in lesions.values())
    result = Result(
        package=PACKAGE,
        command="nlran-explain",
        title=f"Heat maps of {config['model']} on {scored} scans, "
        f"{with_lesions} with lesion masks, {len(labels)} with slice labels",
        rows=table,
        metrics={
            "scans": scored,
            "left_out": len(left_out),
            "maps": {row["map"]: {k: v for k, v in row.items() if k != "map"} for row in table},
        },
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([file for scan, _ in scans for file in scan_files(scan)]),
        device=describe_device(device),
        notes=[
            RESEARCH_USE,
            *(f"{key}: {EXPLAINED[key]}" for key in table[0] if key in EXPLAINED),
            *left_out.notes(),
        ],
    )
    if folder is not None:
        write_csv(folder / "scores.csv", rows)
        result.files["scores"] = str(folder / "scores.csv")
        write_report(folder / "report.html", result, [_section(table)])
        result.save(folder)
    return result


def _score_scan(
    found: Explained,
    of_untrained: Mapping[str, np.ndarray],
    lesion: np.ndarray | None,
    infected: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Return one row per map and, last, the middle of the lungs."""
    volume = found.volume
    on_scan = {name: to_scan_grid(heat, found.grid) for name, heat in found.maps.items()}
    lungs = lung_mask(volume.array, volume.spacing, volume.units)
    on_scan["centre-of-lung"] = centre_of_lung_map(lungs, volume.spacing)
    rows = []
    for name, heat in on_scan.items():
        row: dict[str, Any] = {"map": name}
        if lesion is not None:
            row |= localization(heat, lesion)
        if infected is not None:
            row["slice_auc"] = slice_auc(heat, infected)
            if name == "random" and not isnan(row["slice_auc"]):
                row["slice_auc"] = 0.5  # by symmetry; one draw may be far off for so few slices
        if name in of_untrained:
            row[SANITY[0]] = rank_correlation(found.maps[name], of_untrained[name])
        rows.append(row)
    return rows


def _rests_on(network: Any, found: Explained, name: str, steps: int) -> dict[str, float]:
    """Return the areas under the deletion and insertion curves of a map."""
    heat, answer = torch.from_numpy(found.maps[name]), int(found.logits.argmax())
    areas = deletion_insertion(network, found.inputs, heat, answer, steps=steps)
    return dict(zip(SANITY[1:], areas, strict=True))


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
        path: JSON: name of a scan, without its ending -> numbers of its axial slices in its file,
            from 0, or -> ``{"infected_slices_k": list}``; scans without a list have no labels.

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


def _labels_of_scans(path: str, relatives: Sequence[str]) -> dict[str, list[int]]:
    """Return the labels of the scans that have some, by relative name."""
    by_name = read_slice_labels(path)
    bare = {relative: bare_name(relative.rpartition("/")[2]) for relative in relatives}
    found = {relative: by_name[name] for relative, name in bare.items() if name in by_name}
    if not found:
        raise DataError(f"{path}: names none of the scans, such as {next(iter(bare.values()))}")
    twice = [name for name in bare.values() if list(bare.values()).count(name) > 1]
    if any(bare[relative] in twice for relative in found):
        raise DataError(f"{path}: {twice[0]} means several scans; explain them one by one")
    return found


def infected_slices(listed: Sequence[int], volume: Volume, name: str) -> np.ndarray:
    """Return which slices of the array are infected, bool, shape (D,).

    Args:
        listed: numbers of axial slices in the scan's own file, from 0.
        volume: the scan.
        name: of the scan, for the message.

    Raises:
        DataError: a number is beyond the scan.
    """
    numbers = slice_names(volume)
    if listed and max(listed) >= len(numbers):
        raise DataError(
            f"{name}: infected slice {max(listed)}, but the scan has {len(numbers)} slices"
        )
    return np.isin(numbers, list(listed))


def _section(table: Sequence[Mapping[str, Any]]) -> Section:
    keys = [k for k in (*SCORES, "slice_auc", *SANITY) if table[0].get(k) is not None]
    keys = keys or [k for k in table[0] if k != "map"]

    def draw(figure: Any) -> None:
        for axes, key in zip(
            figure.subplots(1, len(keys), squeeze=False, sharey=True)[0], keys, strict=True
        ):
            values = [row.get(key) or 0.0 for row in table]
            controls = ("trunk", "gradcam-stage1", "random", "centre-of-lung")
            colors = [PALETTE[7] if row["map"] in controls else PALETTE[0] for row in table]
            axes.barh([row["map"] for row in table], values, color=colors)
            axes.set_title(key.replace("_", " "))
        axes.invert_yaxis()  # shared by all

    return Section(
        "Maps side by side",
        figure=figure_png(draw, width=2.2 * len(keys) + 1.5, height=3.2),
        caption="Means over scans. Grey: controls that owe nothing to the attention mask, and the "
        "two trivial maps.",
    )
