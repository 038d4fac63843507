"""`cmdfd-eval`: a network judged on lists of known truth, and what a judgement leaves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from papercommons.cli import ComputeOptions
from papercommons.errors import DataError, counted
from papercommons.files import hash_texts, name_outputs, prepare_out, write_csv
from papercommons.metrics.score_calibration import calibrate_scores
from papercommons.report import Result, describe_device, write_report

from cmdfd.calibration import save_calibration
from cmdfd.entries import FAKE, REAL
from cmdfd.evaluating_lists import (
    OpenList,
    ScoredList,
    Split,
    baseline_scores,
    open_list,
    score_list,
)
from cmdfd.evaluating_report import evaluation_sections
from cmdfd.evaluation import ALL, FEW, Judgement
from cmdfd.lists import text_of_segments
from cmdfd.options import PACKAGE, DataOptions
from cmdfd.saved import LIMITS
from cmdfd.scoring import Detector, KeptScores, open_detector
from cmdfd.scoring_options import (
    Baseline,
    FaceOptions,
    Resample,
    WindowOptions,
)
from cmdfd.splits import find_leaks
from cmdfd.teaching_saved import open_teacher

CALIBRATION = "calibration.json"
TRAINED = "{name}: THESE CLIPS MAY HAVE BEEN TRAINED ON (--split {split}): the numbers flatter"
NO_BETTER = "NOT SHOWN TO BE BETTER THAN CHANCE: the AUC's interval does not clear 0.5"


@dataclass(frozen=True)
class Evaluation:
    """What is to be judged, and how.

    Attributes:
        data: lists and folders.
        checkpoint: the network.
        calibrate_on: list that the threshold and the probabilities come from.
        calibration: file of an earlier run.
        split: of the lists.
        threshold: on the score; None is the calibration's, or 0.
        baselines: beside the lengths.
        teacher: for the baseline ``divergence``.
        resample: what intervals draw.
        bootstrap: resamples.
        out: folder for the report; None writes nothing.
        resume: go on with the run in `out`.
        num_workers: processes that prepare clips.
    """

    data: Sequence[str]
    checkpoint: str
    calibrate_on: str | None
    calibration: str | None
    split: Split
    threshold: float | None
    baselines: Sequence[Baseline]
    teacher: str | None
    resample: Resample
    bootstrap: int
    out: str | None
    resume: bool
    num_workers: int


def evaluate_lists(
    what: Evaluation,
    options: DataOptions,
    faces: FaceOptions,
    windows: WindowOptions,
    run: ComputeOptions,
) -> Result:
    """Judge a network and return the result.

    Args:
        what: is to be judged.
        options: how lists are read.
        faces: how raw clips are cut.
        windows: how clips are looked at.
        run: where and how to compute.

    Raises:
        DataError: the data do not fit the network, or cannot be used.
    """
    detector = open_detector(what.checkpoint, run, what.calibration)
    teacher = None if what.teacher is None else open_teacher(what.teacher).to(detector.device)
    settings: dict[str, Any] = {**asdict(what), "data": list(what.data)}
    settings |= {"baselines": list(what.baselines), "weights": detector.weights}
    settings |= {**asdict(options), **asdict(faces), **asdict(windows), **run.settings()}
    del settings["resume"]
    if detector.calibration is not None:
        settings["calibrated_by"] = hash_texts([str(detector.calibration)])
    folder = None
    if what.out is not None:
        folder = prepare_out(
            what.out,
            settings,
            resume=what.resume,
            overwrite=run.overwrite,
            may_change=("num_workers", "frames_per_batch", "skip_bad"),
            inputs=("weights", "calibrated_by"),
        )
    with cache_folder(folder) as cache:
        opened, of_calibration = open_lists(what, detector, cache, options, faces)
        if of_calibration is not None:
            scored = score(of_calibration, detector, windows, folder)
            detector.calibration = calibrate_scores(scored.scores, scored.fake)
            if detector.calibration is None:
                raise DataError(
                    f"{what.calibrate_on}: all clips are of one class; --calibrate-on needs real "
                    "and fake ones"
                )
        judged = []
        for one in opened:
            scored = score(one, detector, windows, folder)
            scored.baselines = baseline_scores(
                one.clips,
                scored.curves,
                detector,
                what.baselines,
                teacher,
            )
            judged.append(
                Judgement.of(
                    scored,
                    one.originals,
                    threshold=chosen_threshold(what.threshold, detector),
                    calibration=detector.calibration,
                    windows=windows,
                    resample=what.resample,
                    draws=what.bootstrap,
                    seed=run.seed,
                )
            )
        result = make_result(what, opened, judged, detector, settings)
        if folder is not None:
            if of_calibration is not None and detector.calibration is not None:
                file = folder / CALIBRATION
                clips = f"{what.calibrate_on}, {of_calibration.split}"
                save_calibration(file, detector.calibration, weights=detector.weights, clips=clips)
                result.files["calibration"] = str(file)
            write_csv(folder / "items.csv", item_rows(judged, detector))
            result.files["items"] = str(folder / "items.csv")
            sections = evaluation_sections(
                judged, [one.clips for one in opened], detector.calibration
            )
            write_report(folder / "report.html", result, sections)
            result.save(folder)
    return result


@contextmanager
def cache_folder(folder: Path | None) -> Iterator[Path]:
    """Give the folder where raw clips are prepared: OUT/cache, or one that is removed afterwards.

    Args:
        folder: of the run, if it has one.
    """
    if folder is not None:
        yield folder / "cache"
        return
    with tempfile.TemporaryDirectory(prefix="cmdfd-") as name:
        yield Path(name)


def open_lists(
    what: Evaluation,
    detector: Detector,
    cache: Path,
    options: DataOptions,
    faces: FaceOptions,
) -> tuple[list[OpenList], OpenList | None]:
    """Return the lists, and the one for calibration.

    Args:
        what: is to be judged.
        detector: the network.
        cache: folder where raw clips are prepared.
        options: how lists are read.
        faces: how raw clips are cut.

    Raises:
        DataError: see `open_list`; or a clip is in both.
    """
    names = name_outputs(_stem(place) for place in what.data)
    opened = [
        open_list(
            place, name, what.split, detector, cache, options, faces, num_workers=what.num_workers
        )
        for place, name in zip(what.data, names, strict=True)
    ]
    if what.calibrate_on is None:
        return opened, None
    name = name_outputs([*names, "calibration"])[-1]
    held = open_list(
        what.calibrate_on,
        name,
        "auto",
        detector,
        cache,
        options,
        faces,
        num_workers=what.num_workers,
        wish="val",
    )
    for one in opened:
        leaks = find_leaks({one.name: one.clips.entries, name: held.clips.entries})
        if one.files & held.files:
            raise DataError(
                f"{what.calibrate_on} ({held.split}) and {one.name} ({one.split}) share clips; "
                "--calibrate-on takes clips that are not judged"
            )
        if leaks:
            one.notes.append(f"calibration: {leaks[0].words}")
    return opened, held


def score(
    opened: OpenList, detector: Detector, windows: WindowOptions, folder: Path | None
) -> ScoredList:
    """Return a list with what the network says of it; it is kept in the folder of the run.

    Args:
        opened: the list.
        detector: the network.
        windows: how clips are looked at.
        folder: of the run; None keeps nothing.
    """
    path = None if folder is None else folder / "curves" / f"{opened.name}.jsonl"
    curves = score_list(opened, detector, windows, KeptScores(path))
    return ScoredList(opened.name, opened.clips.entries, curves)


def chosen_threshold(given: float | None, detector: Detector) -> float:
    """Return above which score a clip is called fake: given, the calibration's, or 0.

    Args:
        given: by the user.
        detector: knows its calibration.
    """
    if given is not None:
        return given
    return 0.0 if detector.calibration is None else detector.calibration.threshold


def make_result(
    what: Evaluation,
    opened: Sequence[OpenList],
    judged: Sequence[Judgement],
    detector: Detector,
    settings: dict[str, Any],
) -> Result:
    """Return the result of a run, still without files.

    Args:
        what: was to be judged.
        opened: the lists.
        judged: the same lists.
        detector: the network.
        settings: every resolved option.
    """
    clips = sum(len(one.scored.curves) for one in judged)
    calibration = detector.calibration
    return Result(
        package=PACKAGE,
        command="cmdfd-eval",
        title=f"{what.checkpoint}: {clips:,} clips of {len(judged)} list"
        f"{'s' * (len(judged) > 1)}; fake above {judged[0].threshold:.4g}",
        rows=[row for one in judged for row in one.rows()],
        metrics={
            "lists": {one.scored.name: one.numbers() for one in judged},
            "threshold": judged[0].threshold,
            "calibration": None if calibration is None else calibration._asdict(),
            "left_out": sum(len(one.faults) for one in opened),
        },
        settings={**settings, "made_by": detector.config.get("made_by")},
        limits=LIMITS,
        data_hash=hash_texts([one.data_hash for one in opened]),
        device=describe_device(detector.device),
        notes=list(notes_of(what, opened, judged, detector)),
    )


def notes_of(
    what: Evaluation,
    opened: Sequence[OpenList],
    judged: Sequence[Judgement],
    detector: Detector,
) -> Iterator[str]:
    """Give what must be known beside the table, a line each.

    Args:
        what: was to be judged.
        opened: the lists.
        judged: the same lists.
        detector: the network.
    """
    threshold, calibration = judged[0].threshold, detector.calibration
    if what.threshold is not None:
        yield f"threshold {threshold:g}, as given"
    elif calibration is None:
        yield "threshold 0: THE NETWORK IS NOT CALIBRATED; give held-out clips by --calibrate-on"
    elif calibration.slope == 0:
        yield "CALIBRATION: the scores of the held-out clips tell nothing; p is 1/2, threshold 0"
    else:
        yield (
            f"threshold {threshold:.4g}: p(fake) = 1/2 at even prior odds, from "
            f"{calibration.fake} fake and {calibration.real} real held-out clips"
        )
    for one, found in zip(opened, judged, strict=True):
        name = one.name
        if one.split == "train":
            yield TRAINED.format(name=name, split=one.split)
        if not found.both:
            yield f"{name}: ONLY ONE CLASS: AUC, EER and all that needs both are not defined (–)"
        elif not found.measures[ALL]["auc"].low > 0.5:
            yield f"{name}: {NO_BETTER}"
        lengths = found.separation(ALL)
        if lengths is None:
            yield f"{name}: the lengths of the files are not known, so not what they give away"
        elif lengths.verdict.startswith("leak"):
            yield f"{name}: THE LENGTHS OF THE FILES ALONE TELL FAKES: AUC {lengths.auc:.3f}"
        if found.sources < FEW:
            yield f"{name}: ONLY {found.sources} INDEPENDENT SOURCES: the intervals say little"
        if found.localisation:
            parts = ", ".join(f"{k.upper()} {v:.3f}" for k, v in found.localisation.items())
            yield f"{name}: forged parts: {parts}"
        for baseline, auc in found.numbers()["baselines"].items():
            yield f"{name}: baseline {baseline} alone: AUC {auc:.3f}"
        yield from (f"{name}: {note}" for note in one.notes)
        if one.faults:
            yield f"{name}: {counted(len(one.faults), 'clip')} left out"
            yield from (f"left out: {fault}" for fault in one.faults)


def item_rows(judged: Sequence[Judgement], detector: Detector) -> list[dict[str, Any]]:
    """Return one row per clip: truth, prediction, score, correlation and forged parts.

    Args:
        judged: the lists.
        detector: knows its calibration; with one, rows have a probability too.
    """
    rows = []
    for one in judged:
        scores = one.scored.scores
        p = None if detector.calibration is None else detector.calibration.probability(scores)
        for k, (entry, curve) in enumerate(zip(one.scored.entries, one.scored.curves, strict=True)):
            row: dict[str, Any] = {"list": one.scored.name, "name": entry.name}
            row |= {"method": entry.method, "label": FAKE if entry.entire else REAL}
            row |= {"prediction": FAKE if scores[k] > one.threshold else REAL}
            row["score"] = f"{scores[k]:.6g}"
            if p is not None:
                row["p"] = f"{p[k]:.6f}"
            row["correlation"] = f"{curve.correlation.mean():.6f}"
            row |= {name: f"{v[k]:.6g}" for name, v in one.scored.baselines.items()}
            row["frames"] = len(curve.margin)
            row["parts"] = text_of_segments(tuple((b, e) for b, e, _ in one.found[k]))
            rows.append(row)
    return rows


def _stem(place: str) -> str:
    path = Path(place)
    plain = path.is_file() and path.name not in ("list.csv", "metadata.json", "meta_data.csv")
    return (
        path.stem if plain else path.resolve().name if path.is_dir() else path.resolve().parent.name
    )
