"""What `nlran-predict` does: a class and a heat map in the scanner's space for every scan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.cli import ComputeOptions, track
from papercommons.data.defects import LeftOut
from papercommons.devices import autocast, compute_device
from papercommons.errors import DataError, counted
from papercommons.files import (
    atomic_path,
    hash_files,
    hash_saved,
    hash_texts,
    name_outputs,
    prepare_out,
    read_note,
    write_csv,
    write_json,
)
from papercommons.report import Result, Section, describe_device, write_report

from nlran.content import scan_files
from nlran.explanation import Explained, check_lung_mask, explain_scan, lung_mask_of
from nlran.heatmaps import HEAT_MAPS, HeatMap, available_maps
from nlran.layouts import find_scan_files
from nlran.masks import bare_name
from nlran.nifti import write_nifti
from nlran.options import PACKAGE, MapOptions, ReadingOptions
from nlran.pictures import maps_png, most_active_slices, scan_png, slice_titles
from nlran.preparation import GridMap, to_scan_grid
from nlran.saved import RESEARCH_USE, load_network
from nlran.volumes import Volume

LIMITS = (
    f"{RESEARCH_USE} The network names one of its classes for any scan, of a healthy person, of "
    "another disease or of no chest at all. The heat map shows where features respond; it does not "
    "prove what the answer rests on: see it beside its controls."
)
_LONG = ("path", "hash", "page", "heatmap", "notes", "use")  # only in predictions.csv


def predict_scans(
    places: Sequence[str],
    checkpoint: str,
    out: str,
    maps: MapOptions,
    reading: ReadingOptions,
    resume: bool,
    run: ComputeOptions,
) -> Result:
    """Write predictions.csv and, for each scan, a heat map, a picture and a page.

    Args:
        places: scans, or folders of scans.
        checkpoint: folder of a run, or of a saved network.
        out: folder.
        maps: which heat maps, and how they are shown.
        reading: how scans are read.
        resume: go on with an interrupted run; scans that are done and unchanged are kept.
        run: where and how to compute.

    Raises:
        DataError: see `explain_scan`; no scan could be used; an unknown class.
        ValueError: the network has no such map.
    """
    network, config = load_network(checkpoint)
    classes = config["classes"]
    target = None
    if maps.explain_class is not None:
        if maps.explain_class not in classes:
            raise DataError(f"--explain-class {maps.explain_class}: there are {', '.join(classes)}")
        target = classes.index(maps.explain_class)
    scans = find_scan_files(places)
    check_lung_mask(reading, len(scans))
    settings = {"scans": list(places), "checkpoint": checkpoint, "out": out}
    settings |= {"weights": hash_saved(checkpoint)}
    settings |= {**asdict(maps), **asdict(reading), **run.settings()}
    device = compute_device(run)
    network.to(device)
    known = _known_maps(network, config["preparation"].size, device)
    kind = maps.heatmap or ("mask-trunk" if "mask-trunk" in known else "gradcam")
    if kind not in known:
        raise ValueError(f"--heatmap {kind}: {config['model']} has {', '.join(known)}")
    kinds = [k for k in HEAT_MAPS if k in known and (maps.controls or k == kind)]
    folder = prepare_out(out, settings, resume=resume, overwrite=run.overwrite, inputs=["weights"])
    rows, digests, left_out = [], [], LeftOut(reading.skip_bad)
    names = name_scans([relative for _, relative in scans])
    for (scan, relative), name in track(list(zip(scans, names, strict=True)), "scans"):
        note = folder / "scans" / f"{name}.json"
        digest = hash_files(scan_files(scan))
        digests.append(digest)
        kept = read_note(note, scan, digest)
        if kept is not None:
            rows.append(kept)
            continue
        with left_out.noting():
            found = explain_scan(
                network,
                scan,
                config["preparation"],
                kinds,
                device=device,
                autocast=autocast(device, run.precision),
                reading=reading,
                mask=lung_mask_of(relative, reading),
                target=target,
            )
            row = {"scan": name, "path": str(scan), "hash": digest}
            overlay = maps.overlay == "png"
            row |= _write_scan(folder / "scans", name, found, kind, config, overlay, digest)
            write_json(note, row)
            rows.append(row)
    left_out.check_any(len(rows), "scans")
    write_csv(folder / "predictions.csv", rows)
    result = Result(
        package=PACKAGE,
        command="nlran-predict",
        title=f"{config['model']}: {counted(len(rows), 'scan')}, heat map {kind}",
        rows=[{k: v for k, v in row.items() if k not in _LONG} for row in rows],
        metrics={"scans": len(rows), "left_out": len(left_out)},
        settings=settings,
        limits=LIMITS,
        data_hash=hash_texts(digests),
        device=describe_device(device),
        files={
            "predictions": str(folder / "predictions.csv"),
            "scans": str(folder / "scans"),
        },
        notes=[
            RESEARCH_USE,
            *(f"{row['scan']}: {row['notes']}" for row in rows if row["notes"]),
            *left_out.notes(),
        ],
    )
    pages = {row["scan"]: row["page"] for row in rows}
    write_report(folder / "report.html", result, [Section("The scans", links=pages)])
    result.save(folder)
    return result


def name_scans(relatives: Sequence[str]) -> list[str]:
    """Return a short, unique name for the outputs of each scan; the same for the same list.

    Args:
        relatives: of each scan, see `nlran.layouts.find_scan_files`.
    """
    bare = [bare_name(relative.rpartition("/")[2]) for relative in relatives]
    times = Counter(bare)
    return name_outputs(
        bare_name(relative) if times[name] > 1 else name
        for relative, name in zip(relatives, bare, strict=True)
    )


def write_heat_map(path: Path, heat: np.ndarray, volume: Volume) -> None:
    """Write a heat map as 8-bit NIfTI on the grid of the scan's own file, with its affine.

    Args:
        path: ends in .nii.gz.
        heat: float in [0, 1], shape (D, H, W) of the scan.
        volume: the scan.
    """
    array = volume.in_file_order(np.rint(heat * 255).astype(np.uint8))
    affine = volume.file_affine()
    if volume.kind == "dicom":  # a series has no order of axes; NIfTI's is columns, rows, slices
        array, affine = array.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]]
    write_nifti(path, array, affine, scale=1 / 255, note="nlran heat map; research use only")


def _known_maps(network: Any, size: Sequence[int], device: torch.device) -> list[HeatMap]:
    probe = torch.zeros(1, 1, *(length or 16 for length in size), device=device)
    with torch.no_grad():
        return available_maps(network.features(probe))


def _write_scan(
    folder: Path,
    name: str,
    found: Explained,
    kind: HeatMap,
    config: dict[str, Any],
    overlay: bool,
    digest: str,
) -> dict[str, Any]:
    """Write heat map, picture and page of a scan, and return what its row says."""
    volume, preparation, classes = found.volume, config["preparation"], config["classes"]
    heat = to_scan_grid(found.maps[kind], found.grid)
    write_heat_map(folder / f"{name}_heatmap.nii.gz", heat, volume)
    window = preparation.window if volume.units == "HU" else (0.0, 255.0)
    picture = scan_png(volume, heat, window)
    if overlay:
        with atomic_path(folder / f"{name}.png") as temporary:
            temporary.write_bytes(picture)
    probabilities = found.logits.softmax(0).tolist()
    prediction = classes[int(found.logits.argmax())]
    page = Result(
        package=PACKAGE,
        command="nlran-predict",
        title=f"{found.path.name}: {prediction}, {max(probabilities):.0%}",
        rows=[{"class": c, "probability": p} for c, p in zip(classes, probabilities, strict=True)],
        settings={
            "scan": str(found.path),
            "model": config["model"],
            "made_by": config.get("made_by"),
            "input_size": list(found.inputs.shape[2:]),
            "spacing_mm": [round(s, 3) for s in volume.spacing],
            "file_kind": volume.kind,
        },
        limits=LIMITS,
        data_hash=digest,
        device=describe_device(found.inputs.device),
        notes=[RESEARCH_USE, *volume.notes],
    )
    sections = [
        Section(
            f"Where the features respond ({kind})",
            figure=picture,
            caption="The most active axial slices, and the coronal and sagittal plane through the "
            "peak; above the scan alone, below under the heat map. Slices are numbered along the "
            "file's axis, from 0 (of a DICOM series: from the feet). The patient's right is on the "
            "left. The map itself: "
            f"{name}_heatmap.nii.gz, on the scan's own grid.",
        )
    ]
    if len(found.maps) > 1:
        number = most_active_slices(heat, 1)[0]
        shown = {k: _one_slice(found, k, number) for k in found.maps}
        sections.append(
            Section(
                f"{slice_titles(volume)[number].capitalize()}, under every map",
                figure=maps_png(volume, shown, window, slice_number=number),
                caption="Each map is scaled by its own extremes. trunk and gradcam-stage1 are "
                "controls: a map that looks no better than these owes nothing to the attention "
                "mask.",
            )
        )
    write_report(folder / f"{name}.html", page, sections)
    return {
        "prediction": prediction,
        **{f"p({c})": round(p, 6) for c, p in zip(classes, probabilities, strict=True)},
        "read_seconds": round(found.read_seconds, 3),
        "network_seconds": round(found.network_seconds, 3),
        "page": f"scans/{name}.html",
        "heatmap": f"scans/{name}_heatmap.nii.gz",
        "notes": "; ".join(volume.notes),
        "use": RESEARCH_USE,
    }


def _one_slice(found: Explained, kind: str, number: int) -> np.ndarray:
    """Return one axial slice of a map on the scan's grid, without the rest of it."""
    grid = found.grid
    place = (number - grid.shift[0]) / grid.scale[0]
    place = min(max(place, 0.0), grid.grid_shape[0] - 1.0)
    low = int(place)
    high = min(low + 1, grid.grid_shape[0] - 1)
    heat = found.maps[kind]
    mixed = heat[low] + (place - low) * (heat[high] - heat[low])
    flat = GridMap(
        (1.0, *grid.scale[1:]),
        (0.0, *grid.shift[1:]),
        (1, *grid.scan_shape[1:]),
        (1, *grid.grid_shape[1:]),
    )
    return to_scan_grid(mixed[None], flat)[0]
