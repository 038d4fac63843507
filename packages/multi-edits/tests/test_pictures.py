"""Pictures of maps, regions and branches."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")

from multi_edits.edits import Edit
from multi_edits.grouping import AspectGroup
from multi_edits.pictures import branch_labels
from papercommons.pictures import YELLOW, enlarge, heat, outline, shrink, strip


def test_small_pictures_are_enlarged_by_whole_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    large = np.asarray(enlarge(Image.fromarray(pixels)))
    assert (large == np.kron(pixels, np.ones((8, 8, 1), np.uint8))).all()
    same = Image.new("RGB", (512, 300))
    assert enlarge(same) is same
    assert shrink(same, 128).size == (128, 75)
    assert shrink(same, 512) is same


def test_heat_is_red_where_a_map_is_high():
    levels = np.zeros((256, 256), np.float32)
    levels[:, :128] = 255
    for side in (32, 512):
        drawn = np.asarray(heat(Image.new("RGB", (side, side), (200, 200, 200)), levels)).astype(
            int
        )
        left, right = drawn[:, : drawn.shape[1] // 4], drawn[:, -drawn.shape[1] // 4 :]
        assert (left[..., 0] - left[..., 1] > 100).all()
        assert np.ptp(right) == 0  # grey


def test_a_line_runs_inside_of_a_region():
    mask = np.zeros((16, 16), bool)
    mask[4:8, 0:6] = True
    drawn = np.asarray(outline(Image.new("RGB", (32, 32)), mask))
    yellow = (drawn == YELLOW).all(-1)
    inside = np.kron(mask, np.ones((16, 16), bool))
    assert yellow.any()
    assert not (yellow & ~inside).any()
    assert yellow[64:128, 0].all()  # also along the edge of the picture
    assert not yellow[80:110, 20:80].any()
    assert (
        not (np.asarray(outline(Image.new("RGB", (32, 32)), mask & False)) == YELLOW).all(-1).any()
    )


def test_labels_name_the_edits():
    edits = [Edit("red", "green", 1), Edit("cat", "dog", 2), Edit("", "big", 3)]
    groups = [AspectGroup("rigid", (0, 1)), AspectGroup("non-rigid", (2,))]
    apart = SimpleNamespace(edits=edits, groups=groups, branches=[None, None])
    assert branch_labels(apart) == ["1, rigid: red -> green, cat -> dog", "2, non-rigid: + big"]
    together = SimpleNamespace(edits=edits, groups=groups, branches=[None])
    assert branch_labels(together) == ["1, rigid: red -> green, cat -> dog; non-rigid: + big"]


def test_a_strip_has_rows_of_four():
    picture = Image.new("RGB", (32, 32), (220, 30, 30))
    sizes = []
    for count in (1, 4, 5):
        png = strip([picture] * count, ["what is long " * 9] * count)
        sizes.append(Image.open(io.BytesIO(png)).size)
    assert sizes[0] == sizes[1]
    assert sizes[2][0] == sizes[0][0]
    assert abs(sizes[2][1] - 2 * sizes[0][1]) <= 2
