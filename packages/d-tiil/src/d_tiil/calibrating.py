"""`d-tiil-calibrate`: consistency, decision and map threshold from labelled pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.data.defects import defect_notes
from papercommons.errors import DataError
from papercommons.files import hash_files, prepare_out
from papercommons.metrics.roc import binary_auc
from papercommons.report import Result, Section, figure_png, write_report

from d_tiil.calibration import SIGNS, Calibration, fit
from d_tiil.evaluating import map_threshold, unreadable
from d_tiil.finding_files import FINDINGS, FindingSet
from d_tiil.findings import Finding
from d_tiil.measures import is_control, judge_all
from d_tiil.options import CALIBRATION_FILE, PACKAGE
from d_tiil.records import PairSet, Record

LIMITS = (
    "The calibration holds for this model, these settings and pairs like these. The accuracy is "
    "that of the pairs it was fitted to; d-tiil-eval says what it is on others."
)


def calibrate_findings(
    settings: dict[str, Any],
    pairs: PairSet,
    records: Sequence[Record],
    folder: Path,
    feature: str | None,
    locate: bool,
    strict: bool,
    overwrite: bool,
) -> Result:
    """Fit a calibration, write the folder of the run, and return the result.

    Args:
        settings: data, predicted and out, and the command's other words.
        pairs: whose defects are listed.
        records: labelled pairs; controls do not count.
        folder: findings on them by the method.
        feature: the quantity to take, or None for the one that tells best.
        locate: fit the threshold of maps too, where masks are known and the quantity does not
            itself depend on it (clip_region does).
        strict: refuse a pair without a finding.
        overwrite: empty the folder first.

    Raises:
        DataError: no features, one label only, or findings of several models.
        ValueError: no such feature.
    """
    found = FindingSet.open("predicted", folder)
    defects = list(pairs.defects)
    good = []
    for record in records:
        if record.inconsistent is None or is_control(record):
            continue
        missing = found.lacks(record)
        lacks = unreadable(record) if missing is None else [missing]
        if strict and lacks:
            raise DataError(f"{lacks[0]}; leave out --strict to go on")
        defects += lacks
        good += [] if lacks else [record]
    features, labels = _features(found, good, feature)
    made = fit(features, labels, feature=feature)
    locate = locate and made.feature != "clip_region"  # which would be another at another threshold
    made = replace(
        made,
        map_threshold=_map_threshold(found, good) if locate else None,
        made_with=_made_with(found, good, made.feature),
    )
    scores = np.array([made.consistency({made.feature: x}) for x in features[made.feature]])
    right = (scores < made.decision) == (labels == 1)
    result = Result(
        package=PACKAGE,
        command="d-tiil-calibrate",
        title=f"{settings['data']}: {len(good):,} pairs, by {made.feature}",
        rows=[
            {
                "quantity": name,
                "AUC": binary_auc(SIGNS[name] * values, labels),
                "taken": name == made.feature,
            }
            for name, values in features.items()
        ],
        metrics={
            **{name: value for name, value in made.to_dict().items() if name != "made_with"},
            "inconsistent": int(labels.sum()),
            "consistent": int((labels == 0).sum()),
            "accuracy": float(right.mean()),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([folder / FINDINGS]),
        device="cpu",
        notes=[*_notes(made, float(right.mean())), *defect_notes(defects)],
    )
    out = prepare_out(settings["out"], settings, overwrite=overwrite)
    made.save(out / CALIBRATION_FILE)
    result.files["calibration"] = str(out / CALIBRATION_FILE)
    write_report(out / "report.html", result, [_picture(scores, labels, made)])
    result.save(out)
    return result


def _features(
    found: FindingSet, records: Sequence[Record], feature: str | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the quantities that all pairs have, (P,) each, and the labels, (P,)."""
    labels = np.array([int(bool(record.inconsistent)) for record in records])
    if not 0 < labels.sum() < len(labels):
        raise DataError(
            f"{found.folder}: findings of {int(labels.sum())} inconsistent and "
            f"{int((labels == 0).sum())} consistent pairs; both are needed"
        )
    rows = [found.features(record) for record in records]
    names = [name for name in SIGNS if all(name in row for row in rows)]
    if feature is not None and feature not in names:
        raise ValueError(f"--feature {feature}: all pairs have only {', '.join(names) or 'none'}")
    if not names:
        raise DataError(f"{found.folder}: no quantity that all pairs have")
    return {name: np.array([row[name] for row in rows]) for name in names}, labels


def _made_with(found: FindingSet, records: Sequence[Record], feature: str) -> str:
    said = {found.made_with(record, feature) for record in records}
    if len(said) > 1:
        raise DataError(f"{found.folder}: findings of several models or settings; predict anew")
    return said.pop()


def _map_threshold(found: FindingSet, records: Sequence[Record]) -> float | None:
    def only_map(record: Record) -> Finding:
        return Finding(map=found.finding(record).map)

    return map_threshold(judge_all(only_map, [r for r in records if r.inconsistent], label="maps"))


def _notes(made: Calibration, accuracy: float) -> list[str]:
    level = made.map_threshold
    return [
        f"inconsistent below a consistency of {made.decision:.1f}: {accuracy:.1%} of these pairs "
        "are called right",
        "no threshold of maps was fitted" if level is None else f"maps are cut at {level:.3f}",
        *(["the quantity tells nothing: all pairs get the same score"] if made.slope == 0 else []),
    ]


def _picture(scores: np.ndarray, labels: np.ndarray, made: Calibration) -> Section:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        bins = np.linspace(0, 100, 26)
        for value, name in ((0, "consistent"), (1, "inconsistent")):
            axes.hist(scores[labels == value], bins=bins, alpha=0.6, label=name)
        axes.axvline(made.decision, color="black", linewidth=1, linestyle="--", label="decision")
        axes.set(xlabel="consistency", ylabel="pairs")
        axes.legend(loc="upper center")

    figure = figure_png(draw, width=6.0, height=3.0)
    return Section("Consistency of the pairs", figure=figure, caption="Pairs by their consistency.")
