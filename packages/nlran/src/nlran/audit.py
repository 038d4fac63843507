"""Whether a set of scans gives its classes away by something that is not the disease.

In the public list of CC-CCII, for example, 606 of 983 normal scans have a blackened background, and
5 of 1,556 scans of common pneumonia: a network can learn that instead. So a classifier that sees
only such nuisances, never the lungs, should be no better than chance.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.errors import DataError
from papercommons.files import prepare_out
from papercommons.report import PALETTE, Result, Section, figure_png, write_report

from nlran.scans import Scan, ScanSet, find_scans, read_scan
from nlran.volumes import Volume

SHORTCUT_AUC = 0.65
MIN_PATIENTS = 5  # of each class, for a cross-validation
LIMITS = (
    "A high AUC says that a network could tell the classes apart without looking at disease, not "
    "that one does; a low one rules out these features only. For research use; not a medical "
    "device."
)


@dataclass(frozen=True)
class Nuisance:
    """What a scan shows besides its patient.

    Attributes:
        numbers: by name of the feature.
        words: likewise.
    """

    numbers: dict[str, float]
    words: dict[str, str]


def measure_nuisance(volume: Volume, files: Sequence[Path]) -> Nuisance:
    """Return the features of a scan that have nothing to do with disease.

    Args:
        volume: the scan.
        files: its files.
    """
    array = volume.array
    lowest, highest = float(array.min()), float(array.max())
    depth, height, width = array.shape
    numbers = {
        "background share": float(np.count_nonzero(array == lowest) / array.size),
        "slices": depth,
        "height": height,
        "width": width,
        "lowest value": lowest,
        "highest value": highest,
        "slice spacing (mm)": volume.spacing[0],
        "pixel spacing (mm)": volume.spacing[2],
    }
    suffixes = Counter(file.suffix.lower() for file in files)
    kind = suffixes.most_common(1)[0][0] if volume.kind in ("slices", "numpy") else volume.kind
    words = {"format": kind or volume.kind, "values": volume.units}
    return Nuisance(numbers, words | {"stored as": volume.stored or "unknown"})


def audit(
    data: str,
    *,
    manifest: str | None = None,
    classes: Sequence[str] | None = None,
    out: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    allow_gaps: bool = False,
    overwrite: bool = False,
) -> Result:
    """Return a table of nuisance features by class, and how well they alone tell the classes.

    Every scan is read. The AUCs are macro one-versus-rest averages of out-of-fold predictions,
    cross-validated by patient: of a decision tree for one feature, of a random forest for all.

    Args:
        data: see `find_scans`.
        manifest: likewise.
        classes: likewise.
        out: folder for report.html and result.json; None: neither is written.
        limit: read at most so many scans of each class; None: all.
        seed: of folds, forest and bootstrap.
        skip_bad: leave out scans that cannot be read; else they are an error.
        allow_gaps: see `read_volume`.
        overwrite: empty `out` first if it holds an earlier run.

    Raises:
        DataError: see `find_scans` and `prepare_out`; a scan cannot be read.
    """
    scans = find_scans(data, manifest=manifest, classes=classes, skip_bad=skip_bad, check=False)
    scans = scans if limit is None else scans.limit(limit)
    settings = {
        "data": data,
        "manifest": manifest,
        "classes": list(scans.classes),
        "out": out,
        "limit": limit,
        "seed": seed,
        "skip_bad": skip_bad,
        "allow_gaps": allow_gaps,
    }
    if out is not None:
        kept = {name: value for name, value in settings.items() if value is not None}
        prepare_out(out, kept, overwrite=overwrite)
    nuisances, bad = _measure(scans, skip_bad=skip_bad, allow_gaps=allow_gaps)
    scans = scans.without(bad)
    aucs, interval, notes = _judge(scans, nuisances, seed)
    rows = [{**row, "AUC": aucs.get(row["feature"])} for row in _rows(scans, nuisances)]
    low, high = interval
    result = Result(
        package="nlran",
        command="nlran-audit",
        title=f"What tells the classes of {data} apart besides disease",
        rows=rows,
        metrics={
            "macro_auc": aucs.get("all"),
            "macro_auc_low": low,
            "macro_auc_high": high,
            "scans": len(scans),
            "patients": len({scan.patient for scan in scans.scans}),
            "skipped": len(scans.skipped),
            "copies": len(scans.copies),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=scans.hash(),
        device="cpu",
        notes=[f"found: {scans.layout}", *scans.notes, *_faults(scans), *notes],
    )
    if out is not None:
        write_report(Path(out) / "report.html", result, _sections(scans, nuisances, aucs))
        result.save(out)
    return result


def _measure(
    scans: ScanSet, *, skip_bad: bool, allow_gaps: bool
) -> tuple[list[Nuisance], dict[int, str]]:
    """Return the features of the scans that can be read, and why others cannot, by place."""
    nuisances, bad = [], {}
    for place, scan in enumerate(scans.scans):
        try:
            volume = read_scan(scans, scan, allow_gaps=allow_gaps)
        except DataError as error:
            if not skip_bad:
                raise DataError(f"{error}; --skip-bad leaves it out") from None
            bad[place] = str(error)
        else:
            nuisances.append(measure_nuisance(volume, scans.files(scan)))
    return nuisances, bad


def _rows(scans: ScanSet, nuisances: Sequence[Nuisance]) -> list[dict[str, Any]]:
    """Return one row per feature: median and middle 90 % of its numbers, or shares of its words."""
    members: dict[str, list[int]] = {name: [] for name in scans.classes}
    for place, scan in enumerate(scans.scans):
        members[scans.classes[scan.label]].append(place)

    def of_class(places: list[int], name: str) -> str:
        if name in nuisances[0].words:
            counts = Counter(nuisances[place].words[name] for place in places)
            return ", ".join(f"{word} {n / len(places):.0%}" for word, n in counts.most_common(3))
        low, middle, high = np.percentile(
            [nuisances[place].numbers[name] for place in places], [5, 50, 95]
        )
        return f"{middle:.4g}" if low == high else f"{middle:.4g} ({low:.4g} to {high:.4g})"

    def patients(places: list[int]) -> int:
        return len({scans.scans[place].patient for place in places})

    return [
        {"feature": "scans", **{name: str(len(places)) for name, places in members.items()}},
        {"feature": "patients", **{name: str(patients(p)) for name, p in members.items()}},
        *(
            {"feature": feature, **{name: of_class(p, feature) for name, p in members.items()}}
            for feature in (*nuisances[0].numbers, *nuisances[0].words)
        ),
    ]


def _judge(
    scans: ScanSet, nuisances: Sequence[Nuisance], seed: int
) -> tuple[dict[str, float], tuple[float | None, float | None], list[str]]:
    """Return the AUC by feature and of all, the interval of the latter, and what to say of them."""
    owners: dict[int, set[str]] = {label: set() for label in range(len(scans.classes))}
    for scan in scans.scans:
        owners[scan.label].add(scan.patient)
    fewest = min(owners, key=lambda label: len(owners[label]))
    if len(owners[fewest]) < MIN_PATIENTS:
        return (
            {},
            (None, None),
            [
                f"too few patients to judge: {scans.classes[fewest]} has {len(owners[fewest])}, a "
                f"cross-validation needs {MIN_PATIENTS} of each class; the table stands, no AUC"
            ],
        )
    import torch
    from papercommons.metrics.bootstrap import group_weights
    from papercommons.metrics.roc import weighted_auc
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    labels = np.array([scan.label for scan in scans.scans])
    patients = [scan.patient for scan in scans.scans]
    folds = _folds(scans.scans, MIN_PATIENTS, seed)

    def macro_auc(features: np.ndarray, model: Any, weights: Any = None) -> Any:
        scores = torch.from_numpy(_out_of_fold(model, features, labels, folds))
        truth = torch.from_numpy(labels)
        per_class = [
            weighted_auc(scores[:, c], truth == c, weights) for c in range(scores.shape[1])
        ]
        return torch.stack(per_class).mean(0)

    columns = _columns(nuisances)
    tree = DecisionTreeClassifier(max_leaf_nodes=8, min_samples_leaf=3, random_state=seed)
    aucs = {name: macro_auc(column, tree).item() for name, column in columns.items()}
    forest = RandomForestClassifier(100, min_samples_leaf=3, random_state=seed, n_jobs=1)
    weights = torch.cat([torch.ones(1, len(labels)), group_weights(patients, draws=500, seed=seed)])
    estimates = macro_auc(np.concatenate(list(columns.values()), axis=1), forest, weights)
    low, high = torch.nanquantile(
        estimates[1:], torch.tensor([0.025, 0.975], dtype=estimates.dtype)
    ).tolist()
    aucs["all"] = estimates[0].item()
    return aucs, (low, high), _verdict(aucs, low, high)


def _verdict(aucs: dict[str, float], low: float, high: float) -> list[str]:
    told = f"macro AUC {aucs['all']:.2f} (95 % {low:.2f} to {high:.2f}) from nuisances alone"
    if aucs["all"] < SHORTCUT_AUC or low <= 0.5:
        return [f"{told}: no strong shortcut found"]
    guilty = [(auc, name) for name, auc in aucs.items() if name != "all" and auc >= SHORTCUT_AUC]
    ranked = sorted(guilty, reverse=True)
    by = ", ".join(f"{name} {auc:.2f}" for auc, name in ranked) or "a mixture of them"
    return [
        f"SHORTCUT: {told}, by {by}: a network may learn the source instead of the disease; "
        "--lung-mask auto removes the background, --resample spacing the grid; or use scans of one "
        "source"
    ]


def _columns(nuisances: Sequence[Nuisance]) -> dict[str, np.ndarray]:
    """Return the features by name, float64, (N, 1), words as (N, number of words) of 0 and 1."""
    columns = {
        name: np.array([[nuisance.numbers[name]] for nuisance in nuisances])
        for name in nuisances[0].numbers
    }
    for name in nuisances[0].words:
        words = sorted({nuisance.words[name] for nuisance in nuisances})
        columns[name] = np.array([[float(n.words[name] == w) for w in words] for n in nuisances])
    return columns


def _folds(scans: Sequence[Scan], count: int, seed: int) -> np.ndarray:
    """Return the fold of each scan: those of a patient together, each class evenly spread."""
    home: dict[str, int] = {}
    dealt: Counter[int] = Counter()
    for scan in sorted(
        scans, key=lambda scan: hashlib.sha256(f"{seed}:{scan.patient}".encode()).digest()
    ):
        if scan.patient not in home:
            home[scan.patient] = dealt[scan.label] % count
            dealt[scan.label] += 1
    return np.array([home[scan.patient] for scan in scans])


def _out_of_fold(
    model: Any, features: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Return probabilities, (N, C), of each scan by a model fitted without its fold."""
    scores = np.zeros((len(labels), labels.max() + 1))
    for fold in np.unique(folds):
        inside = folds == fold
        model.fit(features[~inside], labels[~inside])
        scores[np.ix_(inside, model.classes_)] = model.predict_proba(features[inside])
    return scores


def _faults(scans: ScanSet) -> list[str]:
    """Return sentences on copies, and on patients and copies in two classes or splits."""
    notes = []
    for what in ("label", "split"):
        seen = defaultdict(set)
        for scan in scans.scans:
            seen[scan.patient].add(getattr(scan, what))
        plural = "classes" if what == "label" else "splits"
        if torn := [patient for patient, values in seen.items() if len(values) > 1]:
            notes.append(f"{len(torn)} patients in several {plural}, e.g. {torn[0]}")
    if scans.skipped:
        path, why = scans.skipped[0]
        notes.append(f"{len(scans.skipped)} scans left out, the first {path} ({why})")
    return notes


def _sections(
    scans: ScanSet, nuisances: Sequence[Nuisance], aucs: dict[str, float]
) -> list[Section]:
    background = {
        name: [
            nuisance.numbers["background share"]
            for nuisance, scan in zip(nuisances, scans.scans, strict=True)
            if scan.label == label
        ]
        for label, name in enumerate(scans.classes)
    }

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        names = [name for name in reversed(aucs) if name != "all"]
        left.barh(names, [aucs[name] for name in names], color=PALETTE[0])
        left.axvline(0.5, color=PALETTE[-1], linestyle="--")
        left.set(title="AUC of one feature", xlim=(0, 1))
        right.hist(list(background.values()), bins=20, range=(0, 1), label=list(background))
        right.set(title="Share of the lowest value", xlabel="share of voxels", ylabel="scans")
        right.legend()

    caption = "Left: how well each feature alone tells the classes. Right: background by class."
    return [Section("Shortcuts", figure=figure_png(draw), caption=caption)]
