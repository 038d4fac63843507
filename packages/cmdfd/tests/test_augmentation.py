from __future__ import annotations

import numpy as np
import pytest
import torch
from cmdfd.augmentation import augment, crop, rotate
from torch.nn import functional as F


@pytest.fixture
def clip():
    chance = torch.Generator().manual_seed(0)
    small = 255 * torch.rand(1, 6, 5, 5, generator=chance)
    return F.interpolate(small, size=(20, 20), mode="bilinear").squeeze(0).to(torch.uint8)


class Fixed:
    """Chance that is told: the number of the change, then what uniform gives."""

    def __init__(self, change, *values):
        self.change, self.values = change, list(values)

    def integers(self, count):
        return self.change

    def uniform(self, low, high, size=None):
        value = self.values.pop(0)
        assert low <= np.min(value) <= np.max(value) <= high
        return value if size is None else np.array(value)


def test_each_change(clip):
    assert torch.equal(augment(clip, Fixed(0)), clip)
    assert torch.equal(augment(clip, Fixed(1)), clip.flip(2))
    part = augment(clip, Fixed(2, 0.75, (0.1, 0.2)))
    assert torch.equal(part, crop(clip, 0.1, 0.2, 0.75))
    assert torch.equal(augment(clip, Fixed(3, -7.0)), rotate(clip, -7.0))


def test_all_frames_of_a_clip_get_one_change(clip):
    together = augment(clip, np.random.default_rng(5))
    for k in range(len(clip)):
        assert torch.equal(augment(clip[k : k + 1], np.random.default_rng(5))[0], together[k])
    changes = {augment(clip, np.random.default_rng(seed)).numpy().tobytes() for seed in range(20)}
    assert len(changes) > 5


def test_nothing_changes_at_the_ends(clip):
    assert torch.equal(crop(clip, 0, 0, 1), clip)
    assert torch.equal(rotate(clip, 0.0), clip)


def test_a_crop_is_the_part_enlarged(clip):
    part = crop(clip, 0.25, 0.5, 0.5)
    expected = F.interpolate(
        clip[None, :, 10:20, 5:15].float(), size=(20, 20), mode="bilinear", align_corners=False
    )[0]
    inner = (slice(None), slice(1, -1), slice(1, -1))  # at the edge it sees its surroundings
    assert (part.float() - expected)[inner].abs().max() <= 0.51


@pytest.mark.parametrize("size", [(21, 21), (21, 31)])
def test_a_quarter_turn_is_counterclockwise(size):
    picture = torch.zeros(1, *size, dtype=torch.uint8)
    middle, right = size[0] // 2, size[1] // 2
    picture[0, middle, right + 6] = 255  # to the right of the middle
    turned = rotate(picture, 90.0)
    assert turned[0, middle - 6, right] == 255
    assert turned.int().sum() == 255
    corner = torch.full((1, *size), 255, dtype=torch.uint8)
    assert rotate(corner, 45.0)[0, 0, 0] == 0


def test_shapes_and_types_stay():
    clip = torch.randint(0, 256, (3, 12, 16)).to(torch.uint8)
    for seed in range(8):
        out = augment(clip, np.random.default_rng(seed))
        assert out.shape == clip.shape
        assert out.dtype == torch.uint8
