import dataclasses
import re

import nibabel
import numpy as np
import pytest
import torch
from nlran.explaining import infected_slices
from nlran.explanation import explain_inputs, explain_scan
from nlran.features import Features, Place
from nlran.model import nlran_tiny
from nlran.options import ReadingOptions
from nlran.pictures import maps_png, most_active_slices, planes, scan_png, slice_names, slice_titles
from nlran.predicting import _one_slice, name_scans, write_heat_map
from nlran.preparation import Preparation, to_scan_grid
from nlran.sanity import deletion_insertion, rank_correlation, untrained_like
from nlran.volumes import Volume, read_volume
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
        return Features(coarse, trunk=coarse, stage1_place=Place((4.0, 4.0, 4.0)))

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


@pytest.mark.parametrize("resample", ["size", "spacing"])
def test_one_slice_is_that_of_the_whole_map(resample, tmp_path):
    scan = np.random.RandomState(0).randint(-1000, 400, (25, 30, 35)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(scan.T, np.diag([2.0, 2, 3, 1])), tmp_path / "x.nii")
    preparation = Preparation(size=(16, 16, 16), resample=resample, spacing=(3.7, 2.9, 3.1))
    found = explain_scan(Brightness(), tmp_path / "x.nii", preparation, ["trunk"])
    whole = to_scan_grid(found.maps["trunk"], found.grid)
    for number in (8, 12, 16):
        np.testing.assert_allclose(_one_slice(found, "trunk", number), whole[number], atol=1e-5)


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
    assert nibabel.load(tmp_path / "h.nii.gz").shape == (512, 512, 12)
    again = read_volume(tmp_path / "h.nii.gz")
    np.testing.assert_allclose(again.affine, found.volume.affine, atol=1e-3)
    heat = to_scan_grid(found.maps["trunk"], found.grid)
    np.testing.assert_allclose(again.array, heat, atol=1 / 255)


def test_units_that_differ_from_the_networks_are_refused_or_keep_their_own_scale(tmp_path):
    grey = np.full((20, 20, 20), 128, np.uint8)
    np.save(tmp_path / "x.npy", grey)
    preparation = Preparation(size=(16, 16, 16))
    with pytest.raises(DataError, match=r"is in uint8, the network was trained on HU"):
        explain_scan(Brightness(), tmp_path / "x.npy", preparation, ["trunk"])
    reading = ReadingOptions(mixed_units=True)
    found = explain_scan(Brightness(), tmp_path / "x.npy", preparation, ["trunk"], reading=reading)
    torch.testing.assert_close(found.inputs, torch.full((1, 1, 16, 16, 16), 128 / 255))


@pytest.mark.parametrize(("trained_on", "mask"), [("masks", None), ("none", "mask.npy")])
def test_a_lung_mask_is_given_where_and_only_where_the_network_knows_it(trained_on, mask, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 20, 20), np.int16))
    np.save(tmp_path / "mask.npy", np.ones((20, 20, 20), np.uint8))
    preparation = Preparation(size=(16, 16, 16), lung_mask=trained_on)
    given = None if mask is None else tmp_path / mask
    with pytest.raises(DataError, match="--lung-mask"):
        explain_scan(Brightness(), tmp_path / "x.npy", preparation, ["trunk"], mask=given)


def test_another_network_gets_the_inputs_that_were_read(tmp_path):
    np.save(tmp_path / "x.npy", np.random.RandomState(0).randint(-1000, 400, (20, 20, 20)))
    preparation = Preparation(size=(16, 16, 16))
    found = explain_scan(Brightness(), tmp_path / "x.npy", preparation)
    other = Brightness()
    again = explain_scan(other, tmp_path / "x.npy", preparation)
    logits, maps = explain_inputs(other, found.inputs, preparation)
    torch.testing.assert_close(logits, again.logits)
    assert maps.keys() == again.maps.keys()
    for name, heat in maps.items():
        np.testing.assert_array_equal(heat, again.maps[name])


def test_the_report_leads_to_the_page_of_every_scan(call, run, phantoms, tmp_path):
    arguments = ("--checkpoint", run, "--out", tmp_path / "p", "--accelerator", "cpu")
    assert call("predict", phantoms / "ct" / "CP", *arguments, "--no-controls") == 0
    page = (tmp_path / "p" / "report.html").read_text()
    leads = re.findall('<a href="(.*?)">', page)
    assert len(leads) == 6
    assert all((tmp_path / "p" / to).is_file() for to in leads)


def test_outputs_are_named_apart_and_stay_in_their_folder():
    names = name_scans(["a/x.nii.gz", "b/x.nii.gz", "y.npy", "b/x", "../.z.nii", "1.2.840.77"])
    assert names == ["a_x", "b_x", "y", "b_x_2", "_z", "1_2_840_77"]
    names = name_scans(["a/x.nii", "a_x_3.nii", "a_x.nii", "a/x.npy", "long" * 60 + ".nii"])
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 200


def test_active_slices_are_the_hottest_and_apart():
    heat = np.zeros((64, 2, 2))
    heat[[10, 11, 40, 60]] = [[[5]], [[6]], [[3]], [[1]]]
    assert most_active_slices(heat, 3) == [11, 40, 60]
    assert most_active_slices(np.zeros((3, 2, 2)), 9) == [0, 1, 2]


def volume_of(array, *, reverse=False):
    order = ((2, reverse), (1, False), (0, False))
    return Volume(array, (2.0, 1.0, 1.0), np.eye(4), order=order)


def test_slices_are_numbered_as_in_the_file():
    array = np.zeros((4, 2, 2), np.float32)
    assert slice_names(volume_of(array)) == [0, 1, 2, 3]
    assert slice_names(volume_of(array, reverse=True)) == [3, 2, 1, 0]
    flat = dataclasses.replace(volume_of(array), affine=np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]])
    assert slice_titles(flat)[3] == "slice 3, z 3 mm"
    assert slice_titles(dataclasses.replace(flat, geometry=False))[3] == "slice 3"
    infected = infected_slices([0, 1], volume_of(array, reverse=True), "x")
    assert infected.tolist() == [False, False, True, True]
    with pytest.raises(DataError, match="infected slice 4, but the scan has 4 slices"):
        infected_slices([4], volume_of(array), "x")


def test_planes_are_hung_as_radiologists_do():
    """The head is up; in coronal planes the patient's right is on the left; sagittal: the front."""
    array = np.zeros((6, 5, 4))
    array[5] = 1  # the head
    array[:, 0] += 2  # the front
    array[:, :, 0] += 4  # the right
    heat = np.zeros((6, 5, 4))
    heat[2, 3, 1] = 1
    *_, (_, coronal, _), (_, sagittal, _) = planes(heat, list("abcdef"), axial=1)
    np.testing.assert_array_equal(array[coronal][:, 1:], np.eye(6)[0][:, None] * np.ones(3))
    assert (array[coronal][:, 0] >= 4).all()
    assert (array[sagittal][:, 0] >= 2).all()
    np.testing.assert_array_equal(array[sagittal][:, 1], np.eye(6)[0])
    title, axial, _ = planes(heat, list("abcdef"), axial=1)[0]
    assert (title, axial) == ("c", 2)


def test_pictures_are_pictures():
    scan = np.random.RandomState(0).uniform(-1000, 400, (12, 10, 14)).astype(np.float32)
    heat = np.random.RandomState(1).rand(12, 10, 14).astype(np.float32)
    for png in (
        scan_png(volume_of(scan), heat, (-1000, 400)),
        maps_png(volume_of(scan), {"a": heat[3]}, (-1000, 400), slice_number=3),
    ):
        assert png.startswith(b"\x89PNG")


def test_an_untrained_network_is_a_new_one_of_the_same_kind():
    config = {"model": "nlran", "classes": ["a", "b"], "options": {"variant": "tiny"}}
    first, same, other = (untrained_like(config, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.head.weight, same.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    new = nlran_tiny(2)
    spread = [float(n.stem[0].weight.detach().std()) for n in (first, new)]
    assert spread[0] == pytest.approx(spread[1], rel=0.2)


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
