from __future__ import annotations

import numpy as np
import pytest
from defi_net.robustness import STANDARD, Distortion, distort, parse_distortions

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("word", "strengths"),
    [
        ("jpeg=100:50:10", [100, 90, 80, 70, 60, 50]),
        ("jpeg=50:100:25", [50, 75, 100]),
        ("jpeg=100:55:20", [100, 80, 60]),
        ("blur=0.5:2:0.5", [0.5, 1, 1.5, 2]),
        ("blur=0.1:0.7:0.2", [0.1, 0.3, 0.5, 0.7]),
        ("webp=90", [90]),
        (" noise=2,10,2 ", [2, 10]),
        ("resize=1:1:0.5", [1]),
    ],
)
def test_words(word, strengths):
    found = parse_distortions([word])
    assert [d.strength for d in found] == strengths
    assert {d.kind for d in found} == {word.strip().partition("=")[0]}


def test_all_at_once_and_the_standard_ones():
    found = parse_distortions(["jpeg=90,80", "jpeg=90", "blur=1"])
    assert list(map(str, found)) == ["jpeg=90", "jpeg=80", "blur=1"]
    assert parse_distortions([]) == []
    standard = parse_distortions(STANDARD)
    kinds = [d.kind for d in standard]
    assert {k: kinds.count(k) for k in kinds} == {"jpeg": 6, "blur": 4, "noise": 5, "resize": 5}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("jpeg", "distortion 'jpeg': expected KIND=START:STOP:STEP"),
        ("=90", "expected KIND"),
        ("jpeg=high", "not numbers"),
        ("jpeg=", "not numbers"),
        ("jpeg=100:50", "needs three numbers"),
        ("jpeg=100:50:-10", "the step above 0"),
        ("jpeg=100:50:0", "the step above 0"),
        ("blur=0:1:0.001", "1001 strengths; at most 100"),
        ("noise=nan", "not finite"),
        ("noise=1:inf:1", "not finite"),
        ("jpg=90", "did you mean jpeg"),
        ("jpeg=101", "jpeg must be a range within 1 to 100, got 101"),
        ("jpeg=90.5", "jpeg=90.5: a quality must be a whole number"),
        ("resize=0", "within 0.1 to 10"),
    ],
)
def test_words_that_are_refused(word, message):
    with pytest.raises(ValueError, match=message):
        parse_distortions([word])


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_lower_quality_changes_more(kind):
    errors = [
        np.abs(distort(PHOTO, Distortion(kind, quality)).astype(int) - PHOTO).mean()
        for quality in (100, 75, 30)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_noise_is_the_photographs_own():
    quiet, loud = (distort(PHOTO, Distortion("noise", s), name="a") for s in (2, 10))
    inside = (PHOTO > 50) & (PHOTO < 205)
    spread = (quiet.astype(float) - PHOTO)[inside].std()
    assert spread == pytest.approx(2, rel=0.1)
    np.testing.assert_array_equal(distort(PHOTO, Distortion("noise", 10), name="a"), loud)
    for other in ({"name": "b"}, {"name": "a", "seed": 1}):
        assert (distort(PHOTO, Distortion("noise", 10), **other) != loud).any()


def test_sizes():
    assert distort(PHOTO, Distortion("resize", 0.5)).shape == (20, 28, 3)
    assert distort(PHOTO, Distortion("resize", 1.5)).shape == (60, 84, 3)
    blurred = distort(PHOTO, Distortion("blur", 2))
    assert blurred.shape == PHOTO.shape
    assert blurred.std() < 0.3 * PHOTO.std()
