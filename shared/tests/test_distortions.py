from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from papercommons.data import distortions
from papercommons.data.distortions import AtSameSize, Distortion, distort, parse_distortions
from PIL import Image

STANDARD = {"jpeg": (90, 50), "blur": (0.5,)}

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
        (" noise=2 ", [2]),
        ("resize=1:1:0.5", [1]),
    ],
)
def test_words(word, strengths):
    found = parse_distortions([word], STANDARD)
    assert [d.strength for d in found] == strengths
    assert {d.kind for d in found} == {word.strip().partition("=")[0]}


def test_many_at_once_and_the_standard_ones():
    found = parse_distortions(["jpeg=90", "80", "jpeg", "blur=1"], STANDARD)
    assert list(map(str, found)) == ["jpeg=90", "jpeg=80", "jpeg=50", "blur=1"]
    assert parse_distortions([], STANDARD) == []
    found = parse_distortions(["standard"], STANDARD)
    assert list(map(str, found)) == ["jpeg=90", "jpeg=50", "blur=0.5"]
    assert pickle.loads(pickle.dumps(found)) == found  # processes that read get them


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("webp", "distortion 'webp': expected KIND=START:STOP:STEP"),
        ("90", "distortion '90': expected KIND"),
        ("", "distortion '': expected KIND"),
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
        ("jpeg=101", "jpeg must be within 1 to 100, got 101"),
        ("jpeg=90.5", "jpeg=90.5: a quality must be a whole number"),
        ("resize=0", "within 0.05 to 10"),
    ],
)
def test_words_that_are_refused(word, message):
    with pytest.raises(ValueError, match=message):
        parse_distortions([word], STANDARD)


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


def test_a_picture_can_get_its_size_back():
    fine = np.indices((48, 40)).sum(0) % 2 * 255
    board = np.repeat(fine[:, :, None], 3, axis=2).astype(np.uint8)
    found = AtSameSize(Distortion("resize", 0.5))(board, np.random.default_rng(0))
    assert found.shape == board.shape
    assert np.ptp(found[4:-4, 4:-4].astype(int)) <= 2  # one grey
    same = AtSameSize(Distortion("jpeg", 50))
    np.testing.assert_array_equal(same(PHOTO, None), distortions.jpeg(PHOTO, 50))
    assert str(same) == "jpeg=50"


RAMP = np.add.outer(np.arange(64), 2 * np.arange(48))
RAMPS = np.stack([RAMP, RAMP // 2, 255 - RAMP], axis=2).clip(0, 255).astype(np.uint8)


def error(one, other):
    return np.abs(one.astype(float) - other).mean()


@pytest.mark.parametrize("compress", [distortions.jpeg, distortions.webp])
def test_less_quality_is_further_from_the_picture(compress):
    noisy = distortions.noise(RAMPS, 20, np.random.default_rng(0))
    errors = [error(compress(noisy, quality), noisy) for quality in (95, 60, 20)]
    assert errors == sorted(errors)
    assert errors[0] > 0
    assert compress(noisy, 95).shape == RAMPS.shape


def test_jpeg_is_pillows():
    file = io.BytesIO()
    Image.fromarray(RAMPS).save(file, "JPEG", quality=77)
    np.testing.assert_array_equal(distortions.jpeg(RAMPS, 77.2), np.asarray(Image.open(file)))


def test_blur_and_noise_have_the_strength_asked_for():
    flat = np.full((128, 128, 3), 128, dtype=np.uint8)
    noisy = distortions.noise(flat, 7, np.random.default_rng(1))
    assert abs(noisy.std() - 7) < 0.1
    blurred = distortions.blur(noisy, 1.5)
    assert abs(blurred.std() - 7 / (2 * np.sqrt(np.pi) * 1.5)) < 0.3  # of white noise
    np.testing.assert_array_equal(distortions.blur(RAMPS, 0), RAMPS)
