from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.handwriting.similarity import (
    correlation,
    dice,
    jaccard,
    rogers_tanimoto,
    sokal_michener,
    yule,
)

MEASURES = [correlation, sokal_michener, rogers_tanimoto, jaccard, dice, yule]
A = np.array([1, 1, 1, 0, 0, 0, 0, 1], bool)
B = np.array([1, 1, 0, 1, 0, 0, 0, 0], bool)  # S11 = 2, S00 = 3, S10 = 2, S01 = 1


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        (correlation, 0.5 + (6 - 2) / (2 * np.sqrt(4 * 4 * 3 * 5))),
        (sokal_michener, 5 / 8),
        (rogers_tanimoto, 5 / 11),
        (jaccard, 2 / 5),
        (dice, 4 / 7),
        (yule, (6 - 2) / (6 + 2)),
    ],
)
def test_values_by_hand(measure, value):
    assert measure(A, B) == pytest.approx(value)


def test_correlation_is_pearsons_shifted():
    assert correlation(A, B) == pytest.approx(0.5 + np.corrcoef(A, B)[0, 1] / 2)


@pytest.mark.parametrize("measure", MEASURES)
@given(seed=st.integers(0, 999))
def test_equal_is_most_alike_and_order_does_not_matter(measure, seed):
    a, b = np.random.default_rng(seed).random((2, 3, 16)) < 0.5
    np.testing.assert_array_equal(measure(a, a), 1)
    np.testing.assert_array_equal(measure(a, b), measure(b, a))
    assert (measure(a, b) <= 1).all()
    assert (measure(a, b) >= (-1 if measure is yule else 0)).all()
    assert measure(a[:, None], b).shape == (3, 3)
    assert measure(a[:, None], b)[2, 1] == measure(a[2], b[1])


@pytest.mark.parametrize(
    ("measure", "unlike"), [(correlation, 0.5), (jaccard, 0), (dice, 0), (yule, 0)]
)
def test_constant_vectors(measure, unlike):
    zeros = np.zeros(4, bool)
    assert measure(zeros, zeros) == 1
    assert measure(zeros, np.array([1, 1, 0, 0], bool)) == unlike


@pytest.mark.parametrize("measure", MEASURES)
def test_bad_input_is_refused(measure):
    for a, b in ((A, B[:5]), (A.astype(int), B), (A, B.astype(float))):
        with pytest.raises(ValueError, match="vectors must be bool of one length"):
            measure(a, b)
