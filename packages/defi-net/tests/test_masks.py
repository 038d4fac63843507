from __future__ import annotations

import numpy as np
import pytest
from defi_net.masks import PRESETS, MaskFiles, draw_mask
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError
from PIL import Image

KINDS = ["freeform", "box", "blob", *PRESETS]


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    height=st.integers(16, 150),
    width=st.integers(16, 150),
    least=st.floats(0.02, 0.3),
)
def test_areas_are_within_bounds(kind, seed, height, width, least):
    area = (least, least + 0.2)
    mask = draw_mask(kind, (height, width), np.random.default_rng(seed), area=area)
    assert mask.shape == (height, width)
    assert mask.dtype == bool
    assert area[0] - 0.02 <= mask.mean() <= area[1] + 0.02  # a box of whole pixels may be a bit off


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_mask_and_others_differ(kind):
    masks = [draw_mask(kind, (64, 64), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()


def thickness(mask):
    """Largest distance, in pixels by rows and columns, from a masked pixel to an unmasked one."""
    steps = 0
    while mask.any():
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        steps += 1
    return steps


def test_strokes_are_as_thick_as_they_are_called():
    def mean(kind):
        rng = np.random.default_rng(0)
        area = (0.02, 0.3)
        return np.mean([thickness(draw_mask(kind, (128, 128), rng, area=area)) for _ in range(12)])

    assert mean("thin") < mean("medium") < mean("thick")


def test_a_box_is_a_box():
    rows, columns = np.nonzero(draw_mask("box", (50, 70), np.random.default_rng(0)))
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_masks_favour_no_side():
    for kind in KINDS:
        rng = np.random.default_rng(0)
        mean = np.mean([draw_mask(kind, (64, 64), rng) for _ in range(150)], axis=0)
        halves = [mean[:32].mean(), mean[32:].mean(), mean[:, :32].mean(), mean[:, 32:].mean()]
        assert max(halves) < 1.3 * min(halves)


def test_bad_bounds_and_kinds_are_refused():
    for area in ((0, 0.4), (0.4, 0.1), (0.5, 1)):
        with pytest.raises(ValueError, match="area must be 0 < least"):
            draw_mask("box", (32, 32), np.random.default_rng(0), area=area)
    with pytest.raises(ValueError, match="no mask 'circle'; there are freeform"):
        draw_mask("circle", (32, 32), np.random.default_rng(0))


@pytest.fixture
def folder(tmp_path):
    for name, columns in (("coffee_mask", 10), ("wide", 30), ("cat", 8)):
        mask = np.zeros((20, 40), dtype=np.uint8)
        mask[:, :columns] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    return tmp_path


def test_a_mask_is_meant_for_the_photo_of_its_name(folder, tmp_path):
    files = MaskFiles(folder)
    rng = np.random.default_rng(0)
    mask = files.draw((40, 80), rng, photo=tmp_path / "photos" / "coffee.jpg")
    assert mask.mean() == 0.25
    assert mask[:, :20].all()
    with pytest.raises(DataError, match=r"wide\.png: marks 75\.0% of the picture"):
        files.draw((40, 80), rng, photo=tmp_path / "wide.jpg")


def test_other_photos_get_any_mask_that_fits(folder):
    files, rng = MaskFiles(folder), np.random.default_rng(0)
    masks = [files.draw((20, 40), rng) for _ in range(40)]
    assert {mask.mean() for mask in masks} == {0.25, 0.2}
    assert {bool(mask[0, 0]) for mask in masks} == {True, False}  # some are mirrored
    with pytest.raises(DataError, match=r"none of 60 masks drawn from it marks 1\.0% to 2\.0%"):
        files.draw((20, 40), rng, area=(0.01, 0.02))
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        MaskFiles(folder / "empty")
