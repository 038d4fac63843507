"""Similarities of binary vectors that studies of CEDAR's GSC features compare.

S11 and S00 count agreeing ones and zeros, S10 and S01 what only the first or second vector has.
All functions take bool arrays of shape (..., D) that broadcast, and return float64 of shape (...).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class _Counts(NamedTuple):
    s11: np.ndarray
    s00: np.ndarray
    s10: np.ndarray
    s01: np.ndarray


def _counts(a: np.ndarray, b: np.ndarray) -> _Counts:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != bool or b.dtype != bool or not a.ndim or a.shape[-1:] != b.shape[-1:]:
        raise ValueError(
            f"vectors must be bool of one length, got {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )
    s11, s10, s01 = (np.asarray((x & y).sum(-1), np.float64) for x, y in ((a, b), (a, ~b), (~a, b)))
    return _Counts(s11, a.shape[-1] - s11 - s10 - s01, s10, s01)


def _divide(part: np.ndarray, whole: np.ndarray, otherwise: np.ndarray | float) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, otherwise)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return 1/2 + (S11 S00 - S10 S01) / (2 sqrt of the product of all four margins), in [0, 1].

    Where a vector is constant: 1 if both are equal, else 1/2.

    Raises:
        ValueError: not bool, or lengths differ.
    """
    s11, s00, s10, s01 = _counts(a, b)
    margins = np.sqrt((s10 + s11) * (s01 + s00) * (s11 + s01) * (s00 + s10))
    equal = (s10 + s01) == 0
    return 0.5 + 0.5 * _divide(s11 * s00 - s10 * s01, margins, equal.astype(float))


def sokal_michener(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (S11 + S00) / D, in [0, 1].

    Raises:
        ValueError: not bool, or lengths differ.
    """
    s11, s00, s10, s01 = _counts(a, b)
    return (s11 + s00) / (s11 + s00 + s10 + s01)


def rogers_tanimoto(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (S11 + S00) / (S11 + S00 + 2 (S10 + S01)), in [0, 1].

    Raises:
        ValueError: not bool, or lengths differ.
    """
    s11, s00, s10, s01 = _counts(a, b)
    return (s11 + s00) / (s11 + s00 + 2 * (s10 + s01))


def jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return S11 / (S11 + S10 + S01), in [0, 1]; 1 for two vectors of zeros.

    Raises:
        ValueError: not bool, or lengths differ.
    """
    s11, _, s10, s01 = _counts(a, b)
    return _divide(s11, s11 + s10 + s01, 1.0)


def dice(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return 2 S11 / (2 S11 + S10 + S01), in [0, 1]; 1 for two vectors of zeros.

    Raises:
        ValueError: not bool, or lengths differ.
    """
    s11, _, s10, s01 = _counts(a, b)
    return _divide(2 * s11, 2 * s11 + s10 + s01, 1.0)


def yule(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Yule's Q, (S11 S00 - S10 S01) / (S11 S00 + S10 S01), in [-1, 1].

    Where that is 0 / 0: 1 if both vectors are equal, else 0.

    Raises:
        ValueError: not bool, or lengths differ.
    """
    s11, s00, s10, s01 = _counts(a, b)
    agree, differ = s11 * s00, s10 * s01
    return _divide(agree - differ, agree + differ, ((s10 + s01) == 0).astype(float))
