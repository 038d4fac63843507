from __future__ import annotations

import numpy as np
import pytest
from defi_net.postprocess import Postprocess, resize_mask
from papercommons.data.distortions import resize, resized_shape

RAMP = np.add.outer(np.arange(64), 2 * np.arange(48))
PHOTO = np.stack([RAMP, RAMP // 2, 255 - RAMP], axis=2).clip(0, 255).astype(np.uint8)


def test_resizing_moves_picture_and_mask_alike():
    mask = np.zeros((64, 48), dtype=bool)
    mask[16:48, 8:40] = True
    photo = resize(mask[..., None].repeat(3, 2).astype(np.uint8) * 255, 0.5)
    small = resize_mask(mask, photo.shape[:2])
    assert photo.shape == (32, 24, 3)
    np.testing.assert_array_equal(small, photo[..., 0] > 127)
    assert resize(PHOTO, 0.1).shape == (16, 16, 3)


def test_steps_are_recorded_and_repeatable():
    steps = Postprocess({"resize": (0.5, 0.9), "blur": (0.1, 1), "noise": (1, 2), "jpeg": (60, 90)})
    photo, done = steps(PHOTO, np.random.default_rng(3))
    again, same = steps(PHOTO, np.random.default_rng(3))
    np.testing.assert_array_equal(photo, again)
    assert done == same
    values = dict(word.split("=") for word in done.split(";"))
    assert list(values) == ["resize", "blur", "noise", "jpeg"]
    assert 0.5 <= float(values["resize"]) <= 0.9
    assert photo.shape[:2] == resized_shape(PHOTO.shape[:2], float(values["resize"]))
    assert 60 <= int(values["jpeg"]) <= 90
    assert Postprocess({})(PHOTO, np.random.default_rng(0)) == (PHOTO, "")


def test_bad_steps_are_refused():
    with pytest.raises(ValueError, match="no distortion 'jpg'; did you mean jpeg"):
        Postprocess({"jpg": (1, 2)})
    for name, bad in (("jpeg", (0, 90)), ("noise", (3, 2)), ("resize", (0.01, 1))):
        with pytest.raises(ValueError, match=f"{name} must be within"):
            Postprocess({name: bad})
