import nibabel
import numpy as np
import pytest
import torch
from nlran.explaining import explain_scan
from nlran.features import Features
from nlran.model import nlran_tiny
from nlran.pictures import maps_png, most_active_slices, scan_png
from nlran.predicting import find_inputs, name_outputs, write_heat_map
from nlran.prepare import Preparation, to_scan_grid
from nlran.sanity import deletion_insertion, randomized, rank_correlation
from nlran.volumes import read_volume
from papercommons.errors import DataError
from torch import nn
from torch.nn import functional as F


class Brightness(nn.Module):
    """Answers with the brightest voxel; its trunk is the input, seen at every fourth voxel."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)

    def features(self, x):
        coarse = F.max_pool3d(x, 5, 4, 2)
        return Features(coarse, trunk=coarse)

    def classify(self, last):
        return self.head(last.amax((2, 3, 4)))

    def forward(self, x):
        return self.classify(self.features(x).last)


ORIENTATIONS = ["RAS", "LPS", "SAL", "PIR", "ASR"]


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("resample", ["size", "spacing"])
def test_a_planted_marker_is_hot_at_its_own_place_in_the_world(codes, resample, tmp_path):
    ras = np.full((60, 70, 50), -800, np.int16)
    ras[22:26, 46:50, 30:34] = 3000
    affine = np.diag([2.0, 1.5, 2.5, 1])
    affine[:3, 3] = -100, 40, -300
    image = nibabel.Nifti1Image(ras, affine)
    axes = nibabel.orientations.axcodes2ornt(codes)
    image = image.as_reoriented(nibabel.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], axes))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    preparation = Preparation(size=(48, 64, 64), resample=resample, spacing=(2.6, 2.0, 2.0))
    found = explain_scan(Brightness(), tmp_path / "scan.nii.gz", preparation, ["trunk"])
    heat = to_scan_grid(found.maps["trunk"], found.grid)
    write_heat_map(tmp_path / "heat.nii.gz", heat, found.volume)

    saved = nibabel.load(tmp_path / "heat.nii.gz")
    assert saved.shape == image.shape
    np.testing.assert_allclose(saved.affine, image.affine)
    hottest = np.argwhere(saved.get_fdata() > 0.98).mean(0)
    place = nibabel.affines.apply_affine(saved.affine, hottest)
    planted = nibabel.affines.apply_affine(affine, [23.5, 47.5, 31.5])
    assert np.abs(place - planted).max() < 6  # mm: a voxel of the map is about 10


def test_real_scans_get_heat_maps_on_their_own_grid(shared_files, tmp_path):
    network, preparation = nlran_tiny().eval(), Preparation(size=(16, 32, 32))
    for scan in (
        "volumes/NCP/P001.nii.gz",
        "volumes/CP/cap001.nii.gz",
        "extra/lung_baseline_small.mha",
    ):
        path = shared_files / "data" / "ct" / scan
        found = explain_scan(network, path, preparation, ["mask-trunk"])
        write_heat_map(
            tmp_path / "h.nii.gz", to_scan_grid(found.maps["mask-trunk"], found.grid), found.volume
        )
        heat = nibabel.load(tmp_path / "h.nii.gz")
        if path.suffix == ".gz":
            own = nibabel.load(path)
            assert heat.shape == own.shape
            np.testing.assert_allclose(heat.affine, own.affine, atol=1e-4)
        again = read_volume(tmp_path / "h.nii.gz")
        np.testing.assert_allclose(again.affine, found.volume.affine, atol=1e-4)


def test_a_dicom_folder_gets_a_heat_map_in_patient_space(shared_files, tmp_path):
    path = shared_files / "data" / "ct" / "dicom_P001"
    found = explain_scan(nlran_tiny().eval(), path, Preparation(size=(16, 32, 32)), ["trunk"])
    write_heat_map(
        tmp_path / "h.nii.gz", to_scan_grid(found.maps["trunk"], found.grid), found.volume
    )
    again = read_volume(tmp_path / "h.nii.gz")
    np.testing.assert_allclose(again.affine, found.volume.affine, atol=1e-3)
    assert again.array.shape == found.volume.array.shape


def test_units_that_differ_from_the_networks_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.random.RandomState(0).randint(0, 255, (20, 20, 20), np.uint8))
    preparation = Preparation(size=(16, 16, 16))
    with pytest.raises(DataError, match=r"is in uint8, the network was trained on HU"):
        explain_scan(Brightness(), tmp_path / "x.npy", preparation, ["trunk"])
    explain_scan(Brightness(), tmp_path / "x.npy", preparation, ["trunk"], mixed_units=True)


def test_a_network_trained_on_masked_lungs_wants_a_mask(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 20, 20), np.int16))
    preparation = Preparation(size=(16, 16, 16), lung_mask="masks")
    with pytest.raises(DataError, match="pass --lung-mask FILE"):
        explain_scan(Brightness(), tmp_path / "x.npy", preparation, ["trunk"])


def test_inputs_are_found_at_any_depth_and_named_apart(tmp_path):
    for name in ("a/x.nii.gz", "b/x.nii.gz", "b/c/y.npy", "b/.hidden.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_inputs([str(tmp_path)])
    assert [p.relative_to(tmp_path).as_posix() for p in found] == [
        *("a/x.nii.gz", "b/c/y.npy", "b/x.nii.gz"),
    ]
    names = name_outputs(found)
    assert names[:2] == ["x", "y"]
    assert len(set(names)) == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no scans in it"):
        find_inputs([str(tmp_path / "empty")])


def test_active_slices_are_the_hottest_and_apart():
    heat = np.zeros((64, 2, 2))
    heat[[10, 11, 40, 60]] = [[[5]], [[6]], [[3]], [[1]]]
    assert most_active_slices(heat, 3) == [11, 40, 60]
    assert most_active_slices(np.zeros((3, 2, 2)), 9) == [0, 1, 2]


def test_pictures_are_pictures():
    scan = np.random.RandomState(0).uniform(-1000, 400, (12, 10, 14)).astype(np.float32)
    heat = np.random.RandomState(1).rand(12, 10, 14).astype(np.float32)
    for png in (
        scan_png(scan, heat, (2, 1, 1), (-1000, 400)),
        maps_png(scan, {"a": heat[3]}, (2, 1, 1), (-1000, 400), slice_number=3),
    ):
        assert png.startswith(b"\x89PNG")


def test_a_randomized_network_has_other_weights_and_the_first_keeps_its_own():
    network = nlran_tiny().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fresh = randomized(network, seed=1)
    assert not torch.equal(fresh.head.weight, network.head.weight)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(randomized(network, seed=1).head.weight, fresh.head.weight)


def test_rank_correlation():
    a = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert np.isnan(rank_correlation(a, torch.zeros(3, 4, 5)))


def test_deletion_falls_and_insertion_rises_with_a_map_that_is_right():
    torch.manual_seed(0)
    network = Brightness()
    network.head.weight.data = torch.tensor([[-40.0], [40.0]])
    network.head.bias.data = torch.tensor([20.0, -20.0])
    volume = 0.2 * torch.rand(1, 1, 16, 16, 16)
    volume[0, 0, 4, 4, 4] = 1
    right, wrong = volume[0, 0], -volume[0, 0]
    deleted, inserted = deletion_insertion(network, volume, right, 1)
    deleted_wrong, inserted_wrong = deletion_insertion(network, volume, wrong, 1)
    assert deleted < 0.2 < 0.8 < deleted_wrong
    assert inserted_wrong < 0.2 < 0.8 < inserted
    with pytest.raises(ValueError, match="steps"):
        deletion_insertion(network, volume, right, 1, steps=0)
