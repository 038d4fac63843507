"""`cmdfd-predict`: do voice and mouth of these clips say the same, and where do they not?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import ComputeOptions, track
from papercommons.data.defects import LeftOut
from papercommons.errors import DataError
from papercommons.files import (
    atomic_path,
    hash_files,
    hash_texts,
    name_outputs,
    prepare_out,
    read_note,
    write_csv,
    write_json,
)
from papercommons.report import Result, Section, describe_device, write_report

from cmdfd.data import AVSample
from cmdfd.one_stream import OneStreamNet
from cmdfd.options import PACKAGE, DataOptions
from cmdfd.pictures import clip_png
from cmdfd.places import shortened
from cmdfd.predicting_files import Source, find_sources, is_made
from cmdfd.predicting_verdicts import Verdict, VerdictSettings, judge_clip, second_rows, shown
from cmdfd.preparation import prepare_clip
from cmdfd.prepared import detector_for
from cmdfd.saved import LIMITS
from cmdfd.scoring import Detector, listed, open_detector, unlisted
from cmdfd.scoring_options import FaceOptions, WindowOptions

FOLDER = "files"
SHOWN = 24  # clips whose pictures are in the report; the others are linked


def predict_clips(
    places: Sequence[str],
    checkpoint: str,
    calibration: str | None,
    threshold: float | None,
    curve: str | None,
    out: str | None,
    resume: bool,
    options: DataOptions,
    faces: FaceOptions,
    windows: WindowOptions,
    run: ComputeOptions,
) -> Result:
    """Say of each clip whether it is fake, and where, and return the result.

    Args:
        places: clips, folders and lists.
        checkpoint: the network.
        calibration: file of cmdfd-eval.
        threshold: on the score; None is the calibration's, or 0.
        curve: CSV file for one row per second of each clip.
        out: folder for pictures, predictions.csv, curve.csv and the report; None writes nothing.
        resume: go on with an interrupted run; clips that are done and unchanged are kept.
        options: how lists are read, and whether clips that cannot be used are left out.
        faces: how faces are found.
        windows: of long clips.
        run: where and how to compute.

    Raises:
        DataError: no clips, one that cannot be used, or no such network.
    """
    sources = find_sources(places, options)
    detector = open_detector(checkpoint, run, calibration)
    given = threshold
    if threshold is None:
        threshold = 0.0 if detector.calibration is None else detector.calibration.threshold
    settings: dict[str, Any] = {"clips": list(places), "checkpoint": checkpoint}
    settings |= {"calibration": calibration, "threshold": given, "out": out}
    settings |= {"weights": detector.weights, **asdict(options)}
    settings |= {**asdict(faces), **asdict(windows), **run.settings()}
    if detector.calibration is not None:
        settings["calibrated_by"] = hash_texts([str(detector.calibration)])
    folder = None
    if out is not None:
        folder = prepare_out(
            out,
            settings,
            resume=resume,
            overwrite=run.overwrite,
            may_change=("frames_per_batch", "skip_bad"),
            inputs=("weights", "calibrated_by"),
        )
    look = VerdictSettings(threshold, faces, windows)
    seen: list[Verdict] = []
    left_out = LeftOut(options.skip_bad)
    read: set[Path] = set()
    names = name_outputs(shortened(Path(source.name).stem) for source in sources)
    for source, name in track(list(zip(sources, names, strict=True)), "clips"):
        with left_out.noting():
            seen.append(look_at(source, name, detector, look, folder))
            read.update(source.files)
    left_out.check_any(len(seen), "clips")
    result = make_result(seen, left_out, detector, look, settings, fixed=given is not None)
    result.data_hash = hash_files(sorted(read))
    seconds = [row for each in seen for row in second_rows(each)]
    if curve is not None:
        write_csv(curve, seconds)
        result.files["curve"] = curve
    if folder is not None:
        write_csv(folder / "curve.csv", seconds)
        write_csv(folder / "predictions.csv", [each.row for each in seen])
        result.files.setdefault("curve", str(folder / "curve.csv"))
        result.files["predictions"] = str(folder / "predictions.csv")
        result.files["pictures"] = str(folder / FOLDER)
        write_report(folder / "report.html", result, sections_of(folder, seen))
        result.save(folder)
    return result


def look_at(
    source: Source, name: str, detector: Detector, look: VerdictSettings, folder: Path | None
) -> Verdict:
    """Return what is said of a clip, and write its picture.

    Args:
        source: the clip.
        name: plain and unique, of what is written.
        detector: the network.
        look: how it is looked at.
        folder: of the run; what an earlier run noted there of the unchanged clip is taken.

    Raises:
        DataError: it cannot be used.
    """
    note = None if folder is None else folder / FOLDER / f"{name}.json"
    files = source.files
    digest = hash_files(files) if all(file.is_file() for file in files) else ""
    if note is not None:
        kept = read_note(note, source.path, digest)
        if kept is not None and kept.keys() >= {"curves", "facts"}:
            return judge_clip(source, name, unlisted(kept["curves"]), kept["facts"], detector, look)
    clip, facts = read_source(source, detector, look.faces)
    ((_, found),) = detector.score([(source.name, clip)], look.windows)
    seen = judge_clip(source, name, found, facts, detector, look)
    if note is not None:
        png = clip_png(
            found,
            np.asarray(clip.frames),
            seen.parts - np.array([seen.begin, seen.begin, 0]),
            threshold=look.threshold,
            begin=seen.begin,
        )
        with atomic_path(note.with_suffix(".png")) as temporary:
            temporary.write_bytes(png)
        about = {"path": str(source.path), "hash": digest}
        write_json(note, {**about, "facts": facts, "curves": listed(found)})
    return seen


def read_source(
    source: Source, detector: Detector, faces: FaceOptions
) -> tuple[AVSample, dict[str, Any]]:
    """Return a clip as the network takes it, and what is known of it.

    Args:
        source: the clip.
        detector: knows how the faces of its training were cut.
        faces: what the user wants instead.

    Raises:
        DataError: see `cmdfd.preparation.prepare_clip`; or prepared faces of another size.
    """
    size = detector.crop["size"]
    if source.prepared is not None:
        clips, number = source.prepared
        if clips.size != size:
            raise DataError(
                f"{source.path}: faces of {clips.size} pixels, the network's are {size}; prepare "
                f"the clips again with --size {size}"
            )
        return clips.read(number, 0, clips.lengths[number]), {"begin": 0.0, "notes": []}
    clip = prepare_clip(
        source.path,
        audio=source.audio,
        detector=detector.finder(faces.detector, made=is_made(source.path)),
        size=size,
        face=faces.number,
        swapped=bool(detector.crop.get("swapped")),
        partial=faces.partial,
    )
    facts = {"begin": float(clip.facts["begin"]), "faces": clip.facts["faces"]}
    return AVSample(clip.frames, clip.waveform), {**facts, "notes": list(clip.notes)}


def make_result(
    seen: Sequence[Verdict],
    left_out: LeftOut,
    detector: Detector,
    look: VerdictSettings,
    settings: dict[str, Any],
    *,
    fixed: bool,
) -> Result:
    """Return the result of a run, still without files.

    Args:
        seen: what is said of each clip.
        left_out: clips that cannot be used.
        detector: the network.
        look: how clips were looked at.
        settings: every resolved option.
        fixed: the user gave the threshold.
    """
    fakes = sum(each.row["prediction"] == "fake" for each in seen)
    files = [
        {
            **each.row,
            "notes": list(each.notes),
            "per_second": [
                {k: v for k, v in row.items() if k != "file"} for row in second_rows(each)
            ],
        }
        for each in seen
    ]
    count = len(left_out)
    left = [f"LEFT OUT: {count} of {len(seen) + count} clips"] if count else []
    return Result(
        package=PACKAGE,
        command="cmdfd-predict",
        title=f"{settings['checkpoint']}: {len(seen):,} clip{'s' * (len(seen) != 1)}, {fakes:,} "
        "called fake",
        rows=[shown(each.row) for each in seen],
        metrics={
            "clips": files,
            "called_fake": fakes,
            "left_out": count,
            "threshold": look.threshold,
        },
        settings={**settings, "made_by": detector.config.get("made_by")},
        limits=LIMITS,
        device=describe_device(detector.device),
        notes=[
            *notes_of(detector, look, fixed=fixed),
            *(f"{each.row['file']}: {note}" for each in seen for note in each.notes),
            *left,
            *left_out.notes(),
        ],
    )


def notes_of(detector: Detector, look: VerdictSettings, *, fixed: bool) -> Iterable[str]:
    """Give what must be known beside the table, a line each.

    Args:
        detector: the network.
        look: how clips were looked at.
        fixed: the user gave the threshold.
    """
    calibration = detector.calibration
    if isinstance(detector.net, OneStreamNet):
        lacks = "hears" if detector.net.stream == "visual" else "sees"
        yield f"the network {lacks} nothing: its correlation has no meaning"
    if fixed:
        yield f"called fake above a score of {look.threshold:g}, as given"
    elif calibration is None:
        yield (
            "called fake above a score of 0: THE NETWORK IS NOT CALIBRATED; cmdfd-eval "
            "--calibrate-on makes a file for --calibration"
        )
    elif calibration.slope == 0:
        yield (
            "called fake above a score of 0: THE SCORES OF THE CLIPS IT WAS CALIBRATED ON TELL "
            "NOTHING, so p is 1/2 whatever the score"
        )
    else:
        yield (
            f"called fake above a score of {look.threshold:.4g}: p(fake) = 1/2 if as many clips "
            "are fake as real"
        )
    found, trained = look.faces.detector, detector_for(detector.crop)
    if found not in ("auto", trained, detector.crop.get("detector")):
        yield f"FACES FOUND BY {found.upper()}, those of the training by {trained.upper()}"


def sections_of(folder: Path, seen: Sequence[Verdict]) -> list[Section]:
    """Return the pictures of the most suspicious clips, and links to the others.

    Args:
        folder: of the run.
        seen: what is said of each clip.
    """
    ordered = sorted(seen, key=lambda each: -each.row["score"])
    sections = []
    for each in ordered[:SHOWN]:
        row = each.row
        p = f", p {row['p_fake']:.3f}" if "p_fake" in row else ""
        parts = shown(row)["suspicious parts (s)"]
        whole = "" if row["prediction"] == "fake" else "; the clip as a whole is called real"
        words = f"Suspicious parts, in seconds: {parts}{whole}." if parts else "No suspicious part."
        path = folder / FOLDER / f"{row['name']}.png"
        sections.append(
            Section(
                f"{row['file']}: {row['prediction']}, score {row['score']:.2f}{p}",
                " ".join([words, *(f"{note}." for note in each.notes)]),
                figure=path.read_bytes() if path.is_file() else None,
                caption="Frames as the network sees them; score and correlation of each frame "
                "(thin) and second (thick); shaded: suspicious parts",
            )
        )
    rest = {each.row["file"]: f"{FOLDER}/{each.row['name']}.png" for each in ordered[SHOWN:]}
    return [*sections, *([Section("The others", links=rest)] if rest else [])]
