"""GSC-512 against an independent implementation of the same definition (tests/data/gsc.npz)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from papercommons.handwriting.gsc import (
    FIXED_THRESHOLDS,
    bit_correlation,
    gsc_batch,
    gsc_bits,
    gsc_features,
)

PARTS = {"gradient": slice(0, 192), "structural": slice(192, 384), "concavity": slice(384, 512)}


@pytest.fixture(scope="module")
def reference():
    with np.load(Path(__file__).parent / "data" / "gsc.npz") as file:
        return dict(file)


@pytest.mark.parametrize("part", PARTS)
def test_densities(reference, part):
    expected = reference[part].reshape(23, -1)
    np.testing.assert_allclose(
        gsc_batch(reference["images"])[:, PARTS[part]], expected, rtol=0, atol=1e-7
    )


def test_one_image_alone(reference):
    expected = np.concatenate([reference[part][7].ravel() for part in PARTS])
    np.testing.assert_allclose(gsc_features(reference["images"][7]), expected, rtol=0, atol=1e-7)


def test_bits_and_their_correlation(reference):
    bits = gsc_bits(gsc_batch(reference["images"]), FIXED_THRESHOLDS)
    np.testing.assert_array_equal(bits, reference["bits_fixed"])
    np.testing.assert_allclose(
        bit_correlation(bits[:, None], bits), reference["correlation"], rtol=1e-12
    )
