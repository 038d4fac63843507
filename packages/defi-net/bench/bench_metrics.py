"""Measures of 1,000 maps of 512 x 512 against scikit-learn, map by map.

``python -m pytest packages/defi-net/bench/bench_metrics.py -s``. Values are tested to be equal;
times are only printed.
"""

from __future__ import annotations

import numpy as np
import pytest
from papercommons.metrics.localization import pixel_metrics
from papercommons.metrics.roc import binary_auc
from papercommons.testing.timing import compare_speed

sklearn_metrics = pytest.importorskip("sklearn.metrics")

SIDE, COUNT, TIMED = 512, 1000, 20
MAKE = {
    "8-bit": lambda p: np.rint(255 * p).astype(np.uint8),
    "float32": lambda p: p,
}


def maps(kind, count):
    """Noisy discs of different places and sizes; each map is another."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(SIDE, SIDE)).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    for _ in range(count):
        centre, radius = random.uniform(100, 400, 2), random.uniform(30, 150)
        mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        shifted = np.roll(noise, tuple(random.integers(SIDE, size=2)), (0, 1))
        probability = 1 / (1 + np.exp(1 - 1.5 * mask.astype(np.float32) - shifted))
        yield MAKE[kind](probability), mask


def plain_metrics(probability, mask):
    """What `pixel_metrics` says by the protocol imdl, from scikit-learn."""
    truth, scores = mask.ravel(), probability.ravel()
    called = scores > (127.5 if scores.dtype == np.uint8 else 0.5)
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        truth, called, average="binary", zero_division=0
    )
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "iou": sklearn_metrics.jaccard_score(truth, called),
        "accuracy": sklearn_metrics.accuracy_score(truth, called),
        "auc": sklearn_metrics.roc_auc_score(truth, scores),
    }


def plain_auc(probability, mask):
    return sklearn_metrics.roc_auc_score(mask.ravel(), probability.ravel())


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(
    ("what", "ours", "plain"),
    [("AUC", binary_auc, plain_auc), ("all measures", pixel_metrics, plain_metrics)],
    ids=["auc", "all"],
)
def test_metrics(kind, what, ours, plain, record):
    checked = COUNT if what == "AUC" else TIMED
    for probability, mask in maps(kind, checked):
        assert ours(probability, mask) == pytest.approx(plain(probability, mask), abs=1e-12)
    pairs = list(maps(kind, TIMED))
    speed = compare_speed(
        lambda: [ours(*pair) for pair in pairs], lambda: [plain(*pair) for pair in pairs], rounds=3
    )
    record(
        measured=f"{what}, {kind} maps",
        size=f"{TIMED} of {SIDE} x {SIDE}; {checked:,} tested equal",
        ours=f"{1e3 * speed.ours_s / TIMED:.2f} ms per map",
        plain=f"scikit-learn, {1e3 * speed.reference_s / TIMED:.1f} ms per map",
        ratio=round(speed.ratio, 1),
        lowest=round(speed.ratio_low, 1),
        highest=round(speed.ratio_high, 1),
        memory=None,
    )
