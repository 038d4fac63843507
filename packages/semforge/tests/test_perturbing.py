from __future__ import annotations

import pickle

import numpy as np
import pytest
from semforge.perturbing import STANDARD, Perturbation, parse_perturbations

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)


def apply(kind, strength, seed=0):
    found = Perturbation(kind, strength)(IMAGE, np.random.default_rng(seed))
    assert found.dtype == np.uint8
    assert found.shape == IMAGE.shape
    return found.astype(float)


def test_words():
    assert list(map(str, parse_perturbations(["jpeg70", "jpeg", "resize0.5"]))) == [
        "jpeg70",
        "jpeg90",
        "jpeg50",
        "jpeg30",
        "resize0.5",
    ]
    every = parse_perturbations(["all"])
    assert len(every) == sum(map(len, STANDARD.values()))
    assert pickle.loads(pickle.dumps(every)) == every  # processes that read get them


@pytest.mark.parametrize(
    "word", ["", "jpg", "jpeg0", "jpeg70.5", "jpeg-3", "resize2", "blur0", "noise1e3", "jpeg 7x"]
)
def test_bad_words(word):
    with pytest.raises(ValueError, match="--perturb"):
        parse_perturbations([word])


@pytest.mark.parametrize("kind", list(STANDARD))
def test_stronger_changes_more(kind):
    changes = [np.abs(apply(kind, strength) - IMAGE).mean() for strength in STANDARD[kind]]
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_noise_has_the_strength_asked_for_and_follows_its_generator():
    grey = np.full((64, 64, 3), 128, np.uint8)
    noisy = Perturbation("noise", 10)(grey, np.random.default_rng(0))
    assert (noisy.astype(float) - 128).std() == pytest.approx(10, rel=0.05)
    assert np.array_equal(apply("noise", 5, 1), apply("noise", 5, 1))
    assert not np.array_equal(apply("noise", 5, 1), apply("noise", 5, 2))


def test_resizing_halves_the_resolution():
    fine = np.indices((48, 48)).sum(0) % 2 * 255
    board = np.repeat(fine[:, :, None], 3, axis=2).astype(np.uint8)
    found = Perturbation("resize", 0.5)(board, np.random.default_rng(0))
    assert np.ptp(found[4:-4, 4:-4].astype(int)) <= 2  # one grey
