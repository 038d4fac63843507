"""Whether a set of scans gives its classes away by something that is not the disease.

In the public list of CC-CCII, for example, 606 of 983 normal scans have a blackened background, and
5 of 1,556 scans of common pneumonia: a network can learn that instead. So a classifier that sees
only such nuisances, never the lungs, should be no better than chance.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlran.scans import Scan, ScanSet
from nlran.volumes import Volume

SHORTCUT_AUC = 0.65
MIN_PATIENTS = 5  # of each class, for a cross-validation
DRAWS = 500


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


def feature_rows(scans: ScanSet, nuisances: Sequence[Nuisance]) -> list[dict[str, Any]]:
    """Return one row per feature: median and middle 90 % of its numbers, or shares of its words.

    Args:
        scans: all of one set.
        nuisances: of each scan.

    Returns:
        Rows with ``feature`` and a column per class; the first two count scans and patients.
    """
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


def nuisance_aucs(
    scans: ScanSet, nuisances: Sequence[Nuisance], seed: int
) -> tuple[dict[str, float], tuple[float | None, float | None], list[str]]:
    """Return how well nuisances alone tell the classes, cross-validated by patient.

    Args:
        scans: all of one set.
        nuisances: of each scan.
        seed: of folds, forest and bootstrap.

    Returns:
        The macro AUC by feature and, as ``all``, of a forest of them; the 95 % interval of the
        latter over patients; and what to say of them. Without enough patients there is no AUC.
    """
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
    from papercommons.metrics.bootstrap import with_intervals
    from papercommons.metrics.roc import weighted_auc
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    labels = np.array([scan.label for scan in scans.scans])
    patients = [scan.patient for scan in scans.scans]
    folds = _folds(scans.scans, MIN_PATIENTS, seed)

    truth = torch.from_numpy(labels)

    def macro_auc(scores: np.ndarray, weights: Any = None) -> Any:
        of_class = [
            weighted_auc(torch.from_numpy(column), truth == c, weights)
            for c, column in enumerate(scores.T)
        ]
        return torch.stack(of_class).mean(0)

    columns = _columns(nuisances)
    tree = DecisionTreeClassifier(max_leaf_nodes=8, min_samples_leaf=3, random_state=seed)
    aucs = {
        name: macro_auc(_out_of_fold(tree, column, labels, folds)).item()
        for name, column in columns.items()
    }
    forest = RandomForestClassifier(100, min_samples_leaf=3, random_state=seed, n_jobs=1)
    together = np.concatenate(list(columns.values()), axis=1)
    scores = _out_of_fold(forest, together, labels, folds)
    found = with_intervals(
        lambda weights: {"all": macro_auc(scores, weights)}, patients, draws=DRAWS, seed=seed
    )["all"]
    aucs["all"], low, high = found
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
