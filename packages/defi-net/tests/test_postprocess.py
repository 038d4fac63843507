from __future__ import annotations

import io

import numpy as np
import pytest
from defi_net import postprocess
from defi_net.postprocess import Postprocess
from PIL import Image

RAMP = np.add.outer(np.arange(64), 2 * np.arange(48))
PHOTO = np.stack([RAMP, RAMP // 2, 255 - RAMP], axis=2).clip(0, 255).astype(np.uint8)


def error(one, other):
    return np.abs(one.astype(float) - other).mean()


@pytest.mark.parametrize("compress", [postprocess.jpeg, postprocess.webp])
def test_less_quality_is_further_from_the_picture(compress):
    noisy = postprocess.noise(PHOTO, 20, np.random.default_rng(0))
    errors = [error(compress(noisy, quality), noisy) for quality in (95, 60, 20)]
    assert errors == sorted(errors)
    assert errors[0] > 0
    assert compress(noisy, 95).shape == PHOTO.shape


def test_jpeg_is_pillows():
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "JPEG", quality=77)
    np.testing.assert_array_equal(postprocess.jpeg(PHOTO, 77.2), np.asarray(Image.open(file)))


def test_resizing_moves_picture_and_mask_alike():
    mask = np.zeros((64, 48), dtype=bool)
    mask[16:48, 8:40] = True
    photo = postprocess.resize(mask[..., None].repeat(3, 2).astype(np.uint8) * 255, 0.5)
    small = postprocess.resize_mask(mask, photo.shape[:2])
    assert photo.shape == (32, 24, 3)
    np.testing.assert_array_equal(small, photo[..., 0] > 127)
    assert postprocess.resize(PHOTO, 0.1).shape == (16, 16, 3)


def test_blur_and_noise_have_the_strength_asked_for():
    flat = np.full((128, 128, 3), 128, dtype=np.uint8)
    noisy = postprocess.noise(flat, 7, np.random.default_rng(1))
    assert abs(noisy.std() - 7) < 0.1
    blurred = postprocess.blur(noisy, 1.5)
    assert abs(blurred.std() - 7 / (2 * np.sqrt(np.pi) * 1.5)) < 0.3  # of white noise
    np.testing.assert_array_equal(postprocess.blur(PHOTO, 0), PHOTO)


def test_steps_are_recorded_and_repeatable():
    steps = Postprocess({"resize": (0.5, 0.9), "blur": (0.1, 1), "noise": (1, 2), "jpeg": (60, 90)})
    photo, done = steps(PHOTO, np.random.default_rng(3))
    again, same = steps(PHOTO, np.random.default_rng(3))
    np.testing.assert_array_equal(photo, again)
    assert done == same
    values = dict(word.split("=") for word in done.split(";"))
    assert list(values) == ["resize", "blur", "noise", "jpeg"]
    assert 0.5 <= float(values["resize"]) <= 0.9
    assert photo.shape[:2] == postprocess.resized_shape(PHOTO.shape[:2], float(values["resize"]))
    assert 60 <= int(values["jpeg"]) <= 90
    assert Postprocess({})(PHOTO, np.random.default_rng(0)) == (PHOTO, "")


def test_bad_steps_are_refused():
    with pytest.raises(ValueError, match="no post-processing 'jpg'; did you mean jpeg"):
        Postprocess({"jpg": (1, 2)})
    for name, bad in (("jpeg", (0, 90)), ("noise", (3, 2)), ("resize", (0.01, 1))):
        with pytest.raises(ValueError, match=f"{name} must be a range within"):
            Postprocess({name: bad})
