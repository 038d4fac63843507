from __future__ import annotations

import logging

import numpy as np
import pytest
from defi_net.layouts import Sample
from defi_net.reading import (
    check_headers,
    check_samples,
    drop_faulty,
    read_header,
    read_mask,
    read_photo,
    read_sample,
)
from papercommons.data import images
from papercommons.errors import DataError
from PIL import Image

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
MASK = np.zeros((24, 40), dtype=bool)
MASK[3:9, 5:20] = True


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def save_turned(path, array, orientation):
    """Save `array` as a camera would that was held otherwise."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(path, array, exif=exif)


@pytest.fixture
def photo(tmp_path):
    return save(tmp_path / "photo.png", PHOTO)


def white(mask):
    return mask.astype(np.uint8) * 255


def test_a_photo_comes_as_it_is(photo):
    np.testing.assert_array_equal(read_photo(photo), PHOTO)


def test_alpha_is_dropped_and_colours_below_it_stay(tmp_path):
    alpha = np.full((24, 40, 1), 7, dtype=np.uint8)
    path = save(tmp_path / "a.png", np.concatenate([PHOTO, alpha], axis=2))
    np.testing.assert_array_equal(read_photo(path), PHOTO)
    path = save(tmp_path / "b.png", np.concatenate([PHOTO[..., :1], alpha], axis=2))
    np.testing.assert_array_equal(read_photo(path), PHOTO[..., [0, 0, 0]])


def test_palettes_grey_and_sixteen_bits_become_eight_bit_rgb(tmp_path):
    palette = Image.fromarray(PHOTO).quantize(16)
    palette.save(tmp_path / "p.png", transparency=3)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(read_photo(tmp_path / "p.png"), expected)
    grey = save(tmp_path / "g.png", PHOTO[..., 0])
    np.testing.assert_array_equal(read_photo(grey), PHOTO[..., [0, 0, 0]])
    wide = save(tmp_path / "w.png", PHOTO[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_photo(wide), PHOTO[..., [0, 0, 0]])
    cmyk = tmp_path / "c.tif"
    Image.fromarray(PHOTO).convert("CMYK").save(cmyk)
    np.testing.assert_array_equal(read_photo(cmyk), PHOTO)


def test_photos_are_put_upright(tmp_path):
    path = save_turned(tmp_path / "turned.png", np.rot90(PHOTO, 1), 6)
    np.testing.assert_array_equal(read_photo(path), PHOTO)
    assert read_header(path) == ((24, 40), (40, 24), 6)


@pytest.mark.parametrize("frame", ["stored", "upright", "own"])
def test_masks_turn_with_their_photo(tmp_path, frame):
    image = save_turned(tmp_path / "photo.png", np.rot90(PHOTO, 1), 6)
    if frame == "own":
        mask = save_turned(tmp_path / "mask.png", white(np.rot90(MASK, 1)), 6)
    else:
        drawn = np.rot90(MASK, 1) if frame == "stored" else MASK
        mask = save(tmp_path / "mask.png", white(np.ascontiguousarray(drawn)))
    sample = Sample(image, mask)
    assert not check_headers([sample])
    photo, read = read_sample(sample)
    np.testing.assert_array_equal(photo, PHOTO)
    np.testing.assert_array_equal(read, MASK)


@pytest.mark.parametrize(
    "values",
    [
        white(MASK),
        MASK,
        MASK.astype(np.uint8),
        MASK.astype(np.uint16),
        MASK.astype(np.uint16) * 255,
        MASK.astype(np.uint16) * 65535,
        white(MASK)[..., None].repeat(3, axis=2),
        np.stack([white(MASK), np.full(MASK.shape, 9, np.uint8)], axis=2),
        np.where(MASK, 128, 127).astype(np.uint8)[:, :0],
    ],
    ids=["255", "bits", "1", "16-bit 1", "16-bit 255", "16-bit", "rgb", "alpha", "empty"],
)
def test_masks_in_many_dresses(tmp_path, values):
    if not values.size:
        values = white(MASK)
        values[20, 3:8] = 127
        values[3, 5:8] = 128
    path = save(tmp_path / "mask.png", values)
    np.testing.assert_array_equal(read_mask(path).mask, MASK)


def test_bad_masks_are_refused_by_name(tmp_path):
    coloured = save(tmp_path / "coloured.png", PHOTO)
    with pytest.raises(DataError, match=r"coloured\.png: a mask must have one channel"):
        read_mask(coloured)
    grey = save(tmp_path / "grey.png", np.full((24, 40), 100, dtype=np.uint8))
    with pytest.raises(DataError, match=r"grey\.png: 100% of the mask is grey"):
        read_mask(grey)
    inverted = np.ones((24, 40), dtype=bool)
    inverted[0, :40] = False
    with pytest.raises(DataError, match=r"95\.8% of the mask is white, so it looks inverted"):
        read_mask(save(tmp_path / "inverted.png", white(inverted)))


def test_sizes_must_agree_unless_masks_are_resized(tmp_path, photo):
    double = white(MASK).repeat(2, axis=0).repeat(2, axis=1)
    sample = Sample(photo, save(tmp_path / "mask.png", double))
    with pytest.raises(DataError, match=r"mask\.png: is 80x48, but photo\.png is 40x24"):
        read_sample(sample)
    assert "80x48" in str(check_headers([sample])[sample])
    assert not check_headers([sample], resize_masks=True)
    np.testing.assert_array_equal(read_sample(sample, resize_masks=True)[1], MASK)


def test_an_empty_mask_is_an_error_or_authentic(tmp_path, photo):
    sample = Sample(photo, save(tmp_path / "mask.png", white(np.zeros_like(MASK))))
    with pytest.raises(DataError, match="marks nothing as forged"):
        read_sample(sample)
    assert not read_sample(sample, missing_mask="authentic")[1].any()
    assert not read_sample(Sample(photo, None))[1].any()


def test_broken_files_are_named(tmp_path, photo, monkeypatch):
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo.read_bytes()[:300])
    with pytest.raises(DataError, match=r"cut\.png: not a readable image"):
        read_photo(cut)
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read_photo(tmp_path / "none.png")
    small = save(tmp_path / "small.png", PHOTO[:15])
    with pytest.raises(DataError, match=r"small\.png: is 40x15; both sides must be >= 16"):
        read_photo(small)
    assert "both sides" in str(check_headers([Sample(small, None)]).popitem()[1])
    floats = tmp_path / "floats.tif"
    Image.fromarray(PHOTO[..., 0].astype(np.float32) * 300).save(floats)
    with pytest.raises(DataError, match="32-bit pixels"):
        read_photo(floats)
    monkeypatch.setattr(images, "MAX_PIXELS", 24 * 40 - 1)
    with pytest.raises(DataError, match="more than 959 pixels"):
        read_photo(photo)


def test_faults_are_counted_and_left_out(tmp_path, photo, caplog):
    mask = save(tmp_path / "mask.png", white(MASK))
    text = tmp_path / "text.png"
    text.write_text("no image")
    grey = white(MASK)
    grey[20:23, :20] = 60
    samples = [
        Sample(photo, mask, name="good"),
        Sample(text, mask, name="bad"),
        Sample(photo, save(tmp_path / "grey.png", grey), name="greyish"),
    ]
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        faults = check_samples(samples)
        assert drop_faulty(samples, faults, skip_bad=True) == [samples[0], samples[2]]
    assert list(faults) == [samples[1]]
    assert "1 masks have more than 1 % grey pixels" in caplog.text
    assert "leaves out 1 of 3 images" in caplog.text
    with pytest.raises(DataError, match=r"text\.png: not a readable image"):
        drop_faulty(samples, faults, skip_bad=False)
    with pytest.raises(DataError, match="none of the 1 images can be used"):
        drop_faulty(samples[1:2], faults, skip_bad=True)


def test_real_masks_have_the_known_areas(shared_files):
    folder = shared_files / "data" / "inpainting"
    places = sorted((folder / "deepfillv2_places2").glob("*_mask.png"))
    areas = [read_mask(path).mask.mean() for path in places]
    np.testing.assert_allclose(areas, [0.098, 0.049, 0.059, 0.138], atol=5e-4)
    places = sorted((folder / "photos_with_masks").glob("*_mask.png"))
    areas = [read_mask(path).mask.mean() for path in places]
    np.testing.assert_allclose(areas, [0.282, 0.462, 0.138, 0.249, 0.132], atol=5e-4)
