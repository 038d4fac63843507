"""What holds for all that is not given: lengths of fine-tuning and of the baselines, as data."""

from __future__ import annotations

from typing import Any

_TINY: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 64,
    "accumulate": 1,
    "max_pairs": 40_000,
    "test_limit": 1000,
}
TRAINING: dict[str, dict[str, dict[str, Any]]] = {
    "model": {
        "quick": {
            "epochs": 3,
            "batch_size": 16,
            "accumulate": 1,
            "max_pairs": 2000,
            "test_limit": 1000,
        },
        "paper": {
            "epochs": 3,
            "batch_size": 4,
            "accumulate": 4,
            "max_pairs": None,
            "test_limit": None,
        },
    },
    "tiny": {"quick": _TINY, "paper": _TINY},
}
"""Fine-tuning of a model, and training of a tiny one; None is all pairs."""

TINY_LR = 3e-3

BASELINE: dict[str, dict[str, dict[str, Any]]] = {
    "hog": {"quick": {"max_pairs": 20_000}, "paper": {"max_pairs": 20_000}},
    "gsc": {"quick": {"max_pairs": 20_000}, "paper": {"max_pairs": 20_000}},
    "resnet18": {
        "quick": {"epochs": 3, "max_pairs": 4_000},
        "paper": {"epochs": 10, "max_pairs": None},
    },
}
"""Training of the baselines; None is all pairs."""
