"""`semforge-eval`: a saved network judged on faces of known truth, and what a judgement leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import ComputeOptions
from papercommons.errors import DataError
from papercommons.files import prepare_out, write_csv
from papercommons.report import Result, Section, describe_device, write_report

from semforge.batches import Change
from semforge.crop_settings import crop_way
from semforge.data import FaceForgeryData
from semforge.entries import FaceList
from semforge.evaluation import detection_measures
from semforge.inspector import Inspector, open_inspector
from semforge.judgement import Judgement, Resample, video_names
from semforge.layouts import open_faces
from semforge.options import PACKAGE, CropMode, DataOptions
from semforge.pictures import errors_sections, judgement_sections, worst_faces
from semforge.saved import LIMITS

TRAINED = "THESE FACES MAY HAVE BEEN TRAINED ON (--split {split}): the numbers flatter."


def evaluate_network(
    data: str,
    checkpoint: str,
    split: str,
    robustness: Sequence[Change],
    threshold: float | None,
    resample: Resample,
    bootstrap: int,
    batch_size: int,
    num_workers: int,
    out: str | None,
    crop: CropMode | None,
    boxes: str | None,
    options: DataOptions,
    run: ComputeOptions,
) -> Result:
    """Judge a saved network and return the result.

    Args:
        data: list, CSV or folder of a published set.
        checkpoint: folder of a run, or of a saved network.
        split: auto, train, val, test or all.
        robustness: after what the faces are judged once more.
        threshold: on p(fake); None is the network's own.
        resample: what intervals draw: video, identity or face.
        bootstrap: resamples.
        batch_size: faces computed at once.
        num_workers: processes that read data beside the main one.
        out: folder for the report; None writes nothing.
        crop: how faces are cut; None is as in training.
        boxes: CSV file of boxes, for ``crop="boxes"``.
        options: how the data are read.
        run: where and how to compute.

    Raises:
        DataError: the data do not fit the network, or cannot be used.
    """
    inspector = open_inspector(checkpoint, run)
    way = crop_way(inspector.config, inspector.net.image_size, crop, boxes)
    graph = inspector.net.graph
    whole = open_faces(data, graph, layout=options.layout, root=options.root)
    faces, split = choose_split(whole, split)
    settings: dict[str, Any] = {"data": data, "checkpoint": checkpoint, "split": split}
    settings |= {"robustness": [str(each) for each in robustness], "threshold": threshold}
    settings |= {"resample": resample, "bootstrap": bootstrap, "out": out}
    settings |= {"batch_size": batch_size, "num_workers": num_workers, **way}
    settings |= {**asdict(options), **run.settings()}
    folder = None if out is None else prepare_out(out, settings, overwrite=run.overwrite)
    found_data = FaceForgeryData(
        test=faces,
        graph=graph,
        **way,
        n_frames=options.n_frames,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=run.seed,
        skip_bad=options.skip_bad,
        allow_leak=options.allow_leak,
    )
    found = judge(
        inspector,
        found_data,
        "test",
        robustness=robustness,
        threshold=threshold,
        resample=resample,
        draws=bootstrap,
        seed=run.seed,
    )
    result = Result(
        package=PACKAGE,
        command="semforge-eval",
        title=f"{checkpoint} on {data}: {len(found.scores.names):,} faces"
        f"{'' if split == 'all' else f' of split {split}'}",
        rows=found.table(),
        metrics=found.numbers(),
        settings={**settings, "made_by": inspector.config.get("made_by")},
        limits=LIMITS,
        data_hash=found_data.data_hash,
        device=describe_device(inspector.device),
        notes=[
            *([TRAINED.format(split=split)] if split in ("train", "all") else []),
            *found.notes(),
            *notes_of(found_data),
        ],
    )
    if folder is not None:
        pictures = read_faces(found_data, "test", found)
        sections = [
            *judgement_sections(found, inspector.calibration),
            *errors_sections(found, pictures),
        ]
        write_judgement(folder, result, found, sections)
    return result


def choose_split(faces: FaceList, split: str) -> tuple[FaceList, str]:
    """Return the entries to judge, and which they are: train, val, test or all.

    Args:
        faces: of a list or folder.
        split: train, val, test, all; auto is test where there is one, else all.

    Raises:
        DataError: there is no such split.
    """
    there = sorted(set(faces.splits) - {""})
    if split == "auto":
        if there and "test" not in there:
            raise DataError(
                f"{faces.source}: has {' and '.join(there)} but no test; name one with --split, or "
                "--split all"
            )
        split = "test" if there else "all"
    if split == "all":
        return faces, split
    entries = tuple(entry for entry in faces.entries if entry.split == split)
    if not entries:
        known = f"it has {', '.join(there)}" if there else "it has no splits"
        raise DataError(f"{faces.source}: no split {split}: {known}; leave out --split")
    return replace(faces, entries=tuple(replace(e, split="") for e in entries)), split


def judge(
    inspector: Inspector,
    data: FaceForgeryData,
    split: str,
    *,
    robustness: Sequence[Change] = (),
    threshold: float | None = None,
    resample: Resample = "video",
    draws: int = 1000,
    seed: int = 0,
) -> Judgement:
    """Return the judgement of a split of the data.

    Args:
        inspector: the network.
        data: the faces.
        split: train, val or test.
        robustness: after what the faces are judged once more.
        threshold: on p(fake); None is the network's own.
        resample: what intervals draw.
        draws: resamples.
        seed: of the resampling.
    """
    scores = inspector.predict(data.loader(split))
    found = Judgement.of(
        scores,
        inspector.net.nodes,
        calibration=inspector.calibration,
        threshold=threshold,
        sources=sources_of(data, split, video_names(scores), scores.names, resample),
        draws=draws,
        seed=seed,
    )
    if robustness:
        found.curves["none"] = {name: each.value for name, each in found.faces.items()}
    for each in robustness:
        changed = inspector.predict(data.loader(split, change=each))
        known = changed.labels[:, 0] != 2
        of_each = detection_measures(
            changed.log_odds[known, 0].double(),
            changed.labels[known, 0] == 1,
            threshold=found.threshold,
        )
        found.curves[str(each)] = {name: float(value) for name, value in of_each.items()}
    return found


def sources_of(
    data: FaceForgeryData,
    split: str,
    videos: Sequence[str],
    names: Sequence[str],
    resample: Resample,
) -> list[str]:
    """Return what is drawn for the intervals, one per face.

    Args:
        data: gives identities: the first one of a face counts; without one, its video.
        split: train, val or test.
        videos: of the faces.
        names: of the faces.
        resample: video, identity or face.
    """
    if resample == "face":
        return list(names)
    if resample == "video":
        return list(videos)
    faces = data.splits[split]
    first = {
        name: f"identity {identity[0]}"
        for name, identity in zip(faces.names, faces.identities, strict=True)
        if identity
    }
    return [first.get(name, video) for name, video in zip(names, videos, strict=True)]


def notes_of(data: FaceForgeryData) -> list[str]:
    """Return what the data say of themselves, and the names of what was left out."""
    return [*map(str, data.facts["notes"]), *(f"left out: {name}" for name in data.left_out)]


def read_faces(data: FaceForgeryData, split: str, found: Judgement) -> dict[int, np.ndarray]:
    """Return the faces that the report shows, uint8 (S, S, 3), by their places.

    Args:
        data: the faces.
        split: that was judged.
        found: the judgement.
    """
    dataset: Any = data.loader(split).dataset
    wanted = {place for places in worst_faces(found).values() for place in places}
    return {place: dataset.read(0, place)[0] for place in sorted(wanted)}


def write_judgement(
    folder: Path, result: Result, found: Judgement, sections: Sequence[Section]
) -> None:
    """Write items.csv, report.html and result.json.

    Args:
        folder: of the run.
        result: gets the files' names.
        found: the judgement.
        sections: all of the report.
    """
    scores = found.scores
    rows = []
    for i, name in enumerate(scores.names):
        row: dict[str, Any] = {"name": name, "video": scores.videos[i]}
        row |= {"method": scores.methods[i], "label": "".join(map(str, scores.labels[i].tolist()))}
        row |= {"log_odds": f"{float(scores.log_odds[i, 0]):.6g}"}
        row |= {"decoded": "".join(map(str, scores.decoded[i].tolist()))}
        for node, p in zip(found.nodes, scores.probabilities[i].tolist(), strict=True):
            row[f"p_{node}"] = f"{p:.6f}"
        rows.append(row)
    write_csv(folder / "items.csv", rows)
    result.files["items"] = str(folder / "items.csv")
    write_report(folder / "report.html", result, sections)
    result.save(folder)


def read_facts(data: str) -> dict[str, Any]:
    """Return facts.json of a set that semforge-synth made, beside its list; {} if there is none."""
    place = Path(data)
    try:
        facts = json.loads(
            ((place if place.is_dir() else place.parent) / "facts.json").read_text("utf-8")
        )
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
