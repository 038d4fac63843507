"""Pictures of what was found: pixels that can be known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from d_tiil.pictures import marked, word_bars
from d_tiil.word_scores import WordScore
from papercommons.pictures import (
    YELLOW,
    enlarge,
    heat,
    outline,
    overlay,
    shrink,
    side_by_side,
    strip,
)
from PIL import Image


@pytest.fixture
def picture(image):
    return Image.fromarray(image)


def test_sizes_are_whole_multiples(picture):
    assert enlarge(picture).size == (256, 256)
    assert enlarge(Image.new("RGB", (100, 30))).size == (300, 90)
    assert enlarge(Image.new("RGB", (300, 30))).size == (300, 30)
    assert shrink(Image.new("RGB", (300, 30)), 100).size == (100, 10)
    assert shrink(picture, 100) is picture


def test_an_overlay_dims_what_is_outside(picture, image):
    mask = np.zeros((32, 32), bool)
    mask[10:22, 3:14] = True
    shown = np.asarray(overlay(picture, mask)).astype(int)
    large = np.kron(image, np.ones((8, 8, 1), int))
    inside = np.kron(mask, np.ones((8, 8), int)) > 0
    assert (shown[~inside] == large[~inside] // 2).all()
    line = (shown == YELLOW).all(-1)
    assert line.any()
    assert not line[~inside].any()
    assert (shown[inside & ~line] == large[inside & ~line]).all()
    empty = overlay(picture, np.zeros((32, 32), bool))
    assert (np.asarray(empty) == large).all()


def test_a_line_runs_along_the_border_of_the_image_too(picture):
    drawn = np.asarray(outline(picture, np.ones((8, 8), bool)))
    assert (drawn[0] == YELLOW).all()
    assert (drawn[128, 100] != YELLOW).any()


def test_heat_is_red_where_a_map_is_high():
    grey = Image.new("RGB", (256, 256), (100, 100, 100))
    levels = np.zeros((256, 256), np.uint8)
    levels[:, 128:] = 255
    left, right = np.asarray(heat(grey, levels))[50, [20, 220]].astype(int)
    assert left.tolist() == [120, 120, 120]
    assert right[0] > 200
    assert right[1] < 60


def test_marked_words():
    words = [WordScore("red", 2, 5, 1.0), WordScore("dog", 6, 9, 0.5)]
    assert marked("a red dog", words) == "a [red] [dog]"
    assert marked("a red dog", []) == "a red dog"


def test_pngs_of_rows_and_bars(picture):
    row = Image.open(io.BytesIO(side_by_side([picture, picture.resize((500, 250))])))
    assert row.size == (224 + 6 + 224, 224)
    page = Image.open(io.BytesIO(strip([picture] * 5, ["a long caption " * 9] * 5)))
    assert page.size[0] == 960
    many = [WordScore(f"word{k}", k, k + 1, k / 50) for k in range(50)]
    few, all_of_them = (Image.open(io.BytesIO(word_bars(w, w[-1:]))) for w in (many[:3], many))
    assert few.height < all_of_them.height < 1000
