from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict, replace

import nibabel
import numpy as np
import pytest
import torch
from nlran.preparation import (
    GridMap,
    Preparation,
    _warn_of_spacing,
    lung_mask,
    map_grid,
    prepare,
    read_mask,
    to_scan_grid,
    to_unit,
)
from nlran.volumes import Volume, default_affine, read_volume
from papercommons.errors import DataError
from torch.nn import functional as F

BY_SPACING = Preparation((16, 24, 32), "spacing", (4.0, 2.0, 2.0))


def volume_of(array, spacing=(2.0, 1.0, 1.0), units="HU"):
    return Volume(np.asarray(array, np.float32), spacing, default_affine(spacing), units)


def noise(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1000, 400, shape).astype(np.float32)


def turned(image):
    """The same picture with its axes in another order, two of them reversed: (h, -w, -d)."""
    return image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))


def body(shape=(40, 64, 64)):
    """HU: a body in air, two lungs in it with a vessel each, a stomach with a bubble."""
    d, h, w = np.ogrid[: shape[0], : shape[1], : shape[2]]
    array = np.full(shape, -1000, dtype=np.float32)
    array[np.broadcast_to(((h - 32) / 24) ** 2 + ((w - 32) / 29) ** 2 < 1, shape)] = 40
    lungs = np.zeros(shape, dtype=bool)
    for centre in (19, 45):
        lungs |= ((d - 22) / 14) ** 2 + ((h - 32) / 15) ** 2 + ((w - centre) / 8) ** 2 < 1
    array[lungs] = -850
    array[:, 31:33, 18:20] = np.maximum(array[:, 31:33, 18:20], 30)
    array[2:5, 38:41, 30:34] = -900
    return array, lungs


@pytest.mark.parametrize("shape", [(130, 200, 180), (20, 40, 50), (64, 128, 128)])
def test_stretching_is_torch_antialiased_bilinear(shape):
    array = noise(shape)
    values, grid = prepare(volume_of(array), Preparation((32, 64, 64)))
    planes = F.interpolate(
        torch.from_numpy(array)[None], (64, 64), mode="bilinear", antialias=True
    ).reshape(1, 1, shape[0], -1)
    expected = F.interpolate(planes, (32, 64 * 64), mode="bilinear", antialias=True)
    assert values.dtype == np.float16
    assert (grid.scan_shape, grid.grid_shape) == (shape, (32, 64, 64))
    np.testing.assert_allclose(values, expected.reshape(32, 64, 64).numpy(), atol=0.5)


def test_place_in_the_scan_is_as_the_map_says():
    axes = np.meshgrid(*(np.arange(n) for n in (40, 60, 80)), indexing="ij")
    for preparation in (Preparation((16, 24, 32)), BY_SPACING):
        for axis, ramp in enumerate(axes):
            values, grid = prepare(volume_of(ramp), preparation)
            expected = grid.scale[axis] * np.arange(grid.grid_shape[axis]) + grid.shift[axis]
            line = values.mean(axis=tuple({0, 1, 2} - {axis}), dtype=np.float64)
            np.testing.assert_allclose(line[1:-1], expected[1:-1], atol=0.02)


def test_spacing_is_kept_about_the_centre_with_air_beyond():
    scan = volume_of(np.full((40, 100, 20), 50.0))
    values, grid = prepare(scan, BY_SPACING)
    assert grid.scale == (2.0, 2.0, 2.0)
    np.testing.assert_allclose(
        [k * (n - 1) / 2 + s for k, n, s in zip(grid.scale, (16, 24, 32), grid.shift, strict=True)],
        [19.5, 49.5, 9.5],
    )
    assert (values[:, :, 11:21] == 50).all()
    assert (values[:, :, :11] == -1024).all()
    assert (values[:, :, 21:] == -1024).all()
    grey, _ = prepare(volume_of(scan.array, units="uint8"), BY_SPACING)
    assert (grey[:, :, :11] == 0).all()


def test_every_slice_is_kept_on_request():
    array = noise((37, 50, 60))
    for resample in ("size", "spacing"):
        preparation = Preparation((0, 16, 16), resample, (5.0, 2.5, 2.5))
        values, grid = prepare(volume_of(array), preparation)
        assert values.shape == (37, 16, 16)
        assert (grid.scale[0], grid.shift[0]) == (1.0, 0.0)


def test_slices_are_limited_evenly():
    ramp = np.arange(37.0)[:, None, None] * np.ones((1, 20, 20))
    for resample in ("size", "spacing"):
        preparation = Preparation((0, 16, 16), resample, max_slices=10)
        values, grid = prepare(volume_of(ramp), preparation)
        assert values.shape == (10, 16, 16)
        expected = 3.7 * np.arange(10) + 1.35
        np.testing.assert_allclose(values[1:-1, 8, 8], expected[1:-1], atol=0.05)
        np.testing.assert_allclose(
            to_scan_grid(values, grid)[5:-5, 10, 10], np.arange(5, 32), atol=0.1
        )
        short, _ = prepare(volume_of(ramp[:7]), preparation)
        np.testing.assert_array_equal(short[:, 8, 8], np.arange(7))


def test_same_grid_changes_nothing():
    array = np.round(noise((16, 20, 24)))
    values, grid = prepare(volume_of(array), Preparation((16, 20, 24)))
    np.testing.assert_array_equal(values, array)
    np.testing.assert_array_equal(to_scan_grid(values, grid), array)


def test_padding_and_metal_do_not_leak():
    array = np.zeros((32, 32, 32), dtype=np.float32)
    array[0], array[20, 20, 20] = -32768, 1e6
    values, _ = prepare(volume_of(array), Preparation((16, 16, 16)))
    assert values.min() >= -1024
    assert np.isfinite(values).all()


@pytest.mark.parametrize(
    "preparation", [Preparation((32, 32, 32)), Preparation((32, 32, 32), "spacing", (2.5, 2, 2))]
)
@pytest.mark.parametrize("place", [(5, 30, 44), (38, 12, 20), (20, 47, 31)])
def test_marker_comes_back_at_its_place(preparation, place, tmp_path):
    """Item 13: also through a file in another orientation."""
    array = np.full((44, 60, 64), -1000, dtype=np.float32)
    array[tuple(slice(p - 1, p + 2) for p in place)] = 1000
    image = nibabel.Nifti1Image(array, default_affine((2.0, 1.0, 1.0)))
    nibabel.save(turned(image), tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    values, grid = prepare(volume, preparation)
    heat = to_scan_grid(to_unit(torch.from_numpy(values), preparation).numpy(), grid)
    assert heat.shape == array.shape
    stored = nibabel.Nifti1Image(volume.in_file_order(heat), volume.file_affine())
    nibabel.save(stored, tmp_path / "heat.nii.gz")
    again = nibabel.load(tmp_path / "heat.nii.gz")
    peak = np.unravel_index(again.get_fdata().argmax(), again.shape)
    world = nibabel.affines.apply_affine(again.affine, peak)
    expected = nibabel.affines.apply_affine(image.affine, place)
    np.testing.assert_allclose(world, expected, atol=2.0)


def test_heat_is_zero_where_the_grid_did_not_reach():
    scan = volume_of(np.zeros((40, 100, 20)))
    grid = map_grid(scan.array.shape, scan.spacing, BY_SPACING)
    heat = to_scan_grid(np.ones(grid.grid_shape, dtype=np.float32), grid)
    reached = np.zeros(scan.array.shape, dtype=bool)
    reached[4:36, 26:74] = True
    np.testing.assert_allclose(heat, reached, atol=1e-6)


def test_going_back_takes_little_more_than_the_result():
    grid = map_grid((200, 256, 256), (1.0, 1.0, 1.0), Preparation((16, 16, 16)))
    heat = np.ones((16, 16, 16), dtype=np.float32)
    tracemalloc.start()
    size = to_scan_grid(heat, grid).nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * size


def test_shapes_are_checked():
    grid = GridMap((1, 1, 1), (0, 0, 0), (4, 4, 4), (4, 4, 4))
    with pytest.raises(ValueError, match="grid's shape"):
        to_scan_grid(np.zeros((4, 4, 5)), grid)
    with pytest.raises(ValueError, match="scan's shape"):
        prepare(volume_of(noise((20, 20, 20))), Preparation(), np.ones((20, 20, 19), dtype=bool))


def test_window_becomes_zero_to_one():
    values = torch.tensor([-2000.0, -1000.0, -300.0, 400.0, 3000.0], dtype=torch.float16)
    unit = to_unit(values, Preparation())
    assert unit.dtype == torch.float32
    np.testing.assert_allclose(unit, [0, 0, 0.5, 1, 1])
    grey = to_unit(torch.tensor([0.0, 51, 255]), Preparation(units="uint8"))
    np.testing.assert_allclose(grey, [0, 0.2, 1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (64, 8, 64)}, "size must be >= 16"),
        ({"size": (8, 64, 64)}, "size must be >= 16"),
        ({"size": (64, 64)}, "size must be 3 numbers"),
        ({"spacing": (0, 1, 1)}, "spacing must be > 0"),
        ({"window": (400, -1000)}, "window must be low < high"),
        ({"window": (0, float("nan"))}, "window must be 2 numbers"),
        ({"resample": "crop"}, "resample must be"),
        ({"units": "grey"}, "units must be"),
        ({"max_slices": 8}, "max_slices needs a size that keeps all slices"),
        ({"size": (0, 16, 16), "max_slices": 0}, "max_slices must be >= 1"),
    ],
)
def test_settings_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**fields)


def test_settings_survive_json():
    preparation = Preparation((0, 64, 96), "spacing", (1.0, 2.0, 2.0), (-1250.0, 250.0), "auto")
    assert Preparation(**json.loads(json.dumps(asdict(preparation)))) == preparation


def test_outside_of_the_mask_is_the_lowest_value():
    array = noise((32, 32, 32))
    mask = np.zeros(array.shape, dtype=bool)
    mask[:, :, 16:] = True
    preparation = Preparation((16, 16, 16), lung_mask="masks")
    values, _ = prepare(volume_of(array), preparation, mask)
    assert (values[:, :, :7] == -1000).all()
    assert (values[:, :, 9:] > -900).all()
    with pytest.raises(ValueError, match="read the scan's mask"):
        prepare(volume_of(array), preparation)


@pytest.mark.parametrize("low", [-1350.0, -1000.0, -160.0])
def test_outside_of_the_mask_and_beyond_the_scan_is_black_in_any_window(low):
    array = np.full((40, 100, 20), 40.0)
    mask = np.zeros(array.shape, dtype=bool)
    mask[:, :, 8:] = True
    preparation = Preparation((16, 24, 32), "spacing", (4.0, 2.0, 2.0), (low, 240.0))
    values, _ = prepare(volume_of(array), preparation, mask)
    unit = to_unit(torch.from_numpy(values), preparation).numpy()
    assert (unit[:, :, :14] == 0).all()
    assert (unit[:, :, 21:] == 0).all()
    np.testing.assert_allclose(unit[:, :, 17:20], (40 - low) / (240 - low), atol=1e-3)


def test_scans_without_spacing_are_not_resampled_by_it(caplog):
    array, _ = body()
    scan = replace(volume_of(array, (1.0, 1.0, 1.0)), geometry=False, path="P1.npy")
    with pytest.raises(DataError, match=r"P1\.npy: the file tells no spacing.*--resample size"):
        prepare(scan, BY_SPACING)
    _warn_of_spacing.cache_clear()
    for _ in range(2):
        prepare(scan, Preparation((40, 64, 64), lung_mask="auto"))
    assert caplog.text.count("voxels are taken as 1 mm") == 1


@pytest.mark.parametrize("units", ["HU", "uint8"])
def test_lungs_are_found_without_the_air_about(units):
    array, lungs = body()
    if units == "uint8":
        array = np.clip((array + 1020) / 1400 * 255, 0, 255).round()
    found = lung_mask(array, (2.5, 2.5, 2.5), units)
    assert found.dtype == np.bool_
    assert (found & lungs).sum() > 0.99 * lungs.sum()
    assert found[20, 32, 18]  # the vessel in the lung
    assert not found[:, 0].any()
    assert not found[3, 39, 31]  # the bubble
    assert found.sum() < 1.4 * lungs.sum()


def test_lungs_of_fine_scans_are_found_alike():
    array, _ = body()
    fine = array.repeat(2, axis=0).repeat(3, axis=1).repeat(3, axis=2)
    found = lung_mask(fine, (1.25, 2.5 / 3, 2.5 / 3))
    np.testing.assert_array_equal(found[::2, 1::3, 1::3], lung_mask(array, (2.5, 2.5, 2.5)))


def test_lungs_of_pictures_blacked_out_before_are_found():
    _, lungs = body()
    grey = np.where(lungs, 30, 0)
    assert (lung_mask(grey, (2.5, 2.5, 2.5), "uint8") & lungs).sum() == lungs.sum()


def test_real_lungs_have_a_plausible_volume(shared_files):
    volume = read_volume(shared_files / "data" / "ct" / "volumes" / "NCP" / "P001.nii.gz")
    lungs = lung_mask(volume.array, volume.spacing)
    litres = lungs.sum() * np.prod(volume.spacing) / 1e6
    assert 2.5 < litres < 7.5
    assert 0.5 < lungs[:, :, 64:].sum() / lungs[:, :, :64].sum() < 2


def test_automatic_mask_blacks_out_the_body():
    array, _ = body()
    scan = volume_of(array, (2.5, 2.5, 2.5))
    preparation = Preparation((40, 64, 64), lung_mask="auto")
    values, _ = prepare(scan, preparation)
    assert values[20, 32, 2] == -1000
    assert (values[~lung_mask(array, scan.spacing)] == -1000).all()
    with pytest.raises(DataError, match="no lungs found"):
        prepare(volume_of(np.full((32, 32, 32), 40.0)), preparation)


def test_mask_on_a_finer_grid_selects_the_known_voxels(shared_files):
    """Item 14; without the origins the mean would be -858.07."""
    pytest.importorskip("SimpleITK")
    extra = shared_files / "data" / "ct" / "extra"
    volume = read_volume(extra / "lung_baseline_small.mha")
    mask = read_mask(extra / "lung_baseline_mask.mha", volume)
    assert mask.dtype == np.bool_
    assert mask.sum() == 90_245
    assert volume.array[mask].mean(dtype=np.float64) == pytest.approx(-869.23, abs=0.005)


def test_mask_of_another_orientation_lies_right(tmp_path):
    array = noise((20, 24, 28))
    mask = np.zeros(array.shape, dtype=np.uint8)
    mask[3:7, 10:20, 0:5] = 1
    affine = default_affine((2.0, 1.0, 1.0))
    affine[:3, 3] = 5, 6, 7
    image = turned(nibabel.Nifti1Image(mask, affine))
    nibabel.save(image, tmp_path / "mask.nii.gz")
    scan = Volume(array, (2.0, 1.0, 1.0), affine)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", scan), mask != 0)
    nibabel.save(image.slicer[15:, 25:], tmp_path / "part.nii.gz")
    cut = mask.copy()
    cut[:, :15] = cut[:, :, 3:] = 0
    np.testing.assert_array_equal(read_mask(tmp_path / "part.nii.gz", scan), cut != 0)


def test_masks_that_do_not_belong_are_refused(tmp_path):
    scan = volume_of(noise((20, 24, 28)))
    nowhere = default_affine((2.0, 1.0, 1.0))
    nowhere[0, 3] = 5000
    full = np.ones(scan.array.shape, dtype=np.uint8)
    nibabel.save(nibabel.Nifti1Image(full, nowhere), tmp_path / "far.nii")
    np.save(tmp_path / "mask.npy", full.astype(bool))
    with pytest.raises(DataError, match=r"far\.nii: marks no voxel"):
        read_mask(tmp_path / "far.nii", scan)
    with pytest.raises(DataError, match=r"mask\.npy: .*give both as NIfTI"):
        read_mask(tmp_path / "mask.npy", scan)
    bare = Volume(scan.array, (1.0, 1.0, 1.0), scan.affine, geometry=False)
    assert read_mask(tmp_path / "mask.npy", bare).all()
