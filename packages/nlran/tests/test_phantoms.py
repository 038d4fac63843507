"""Phantoms: known lesions, classes told apart by nothing but where the lesions are."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nlran.phantoms import CLASSES, Lesions, make_phantom, plant_lesions, write_phantoms
from nlran.volumes import read_volume
from scipy.ndimage import label as components

SEEDS = range(30)
APART = Lesions(radius=(2.2, 2.4), ragged=0.0)


def of_side(mask):
    """Return the number of lesion voxels in the right and in the left half."""
    half = mask.shape[-1] // 2
    return np.array([mask[..., :half].sum(), mask[..., half:].sum()])


def test_the_class_is_where_the_lesions_are():
    for seed in SEEDS:
        masks = {c: make_phantom(c, seed, lesions=APART)[1] for c in CLASSES}
        assert not masks["Normal"].any()
        assert components(masks["NCP"])[1] == components(masks["CP"])[1] == 2
        assert (of_side(masks["NCP"]) > 0).all()
        assert (of_side(masks["CP"]) == 0).sum() == 1


def test_lesions_of_both_classes_are_alike():
    def lesions(name):
        made = [make_phantom(name, seed) for seed in SEEDS]
        bare = [make_phantom("Normal", seed)[0] for seed in SEEDS]
        sizes = [mask.sum() for _, mask in made]
        added = [(hu - clean)[mask].mean() for (hu, mask), clean in zip(made, bare, strict=True)]
        return np.mean(sizes), np.mean(added)

    np.testing.assert_allclose(lesions("NCP"), lesions("CP"), rtol=0.05)


def test_phantoms_of_one_seed_differ_in_their_lesions_only():
    normal, _ = make_phantom("Normal", 4)
    for name in ("NCP", "CP"):
        hu, mask = make_phantom(name, 4)
        rise = (hu.astype(int) - normal)[hu < 3071]
        assert rise.min() >= 0
        assert (hu.astype(int) - normal)[mask].min() >= 0.5 * 250 - 1
        assert ((hu != normal) & ~mask).sum() < 3 * mask.sum()  # the soft edge, nothing else


def test_a_phantom_is_a_chest_in_hounsfield_units():
    hu, _ = make_phantom("Normal", 1)
    assert hu.dtype == np.int16
    assert hu.shape == (32, 32, 32)
    assert -1024 <= hu.min() <= -1000
    assert hu[16, 0, 0] < -850
    assert hu[16, 16, 16] == pytest.approx(40, abs=150)
    assert ((hu > -950) & (hu < -600)).mean() > 0.05


def test_the_seed_decides():
    one, again, other = (make_phantom("CP", seed)[0] for seed in (7, 7, 8))
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.5
    assert (make_phantom("CP", (7, 1))[0] != make_phantom("CP", (7, 2))[0]).any()


def test_lesions_scale_with_the_volume():
    shares = [
        np.mean([make_phantom("NCP", seed, size=size)[1].mean() for seed in range(20)])
        for size in (24, 48)
    ]
    assert shares[0] == pytest.approx(shares[1], rel=0.2)


def test_contrast_is_what_was_asked_for():
    lesions = Lesions(contrast=(300.0, 300.0), edge=0.01, ragged=0.0)
    lungs = np.zeros((2, 24, 24, 24), dtype=bool)
    lungs[0, 4:20, 4:20, 2:11] = lungs[1, 4:20, 4:20, 13:22] = True
    air = np.full((24, 24, 24), -850, dtype=np.float32)
    hu, mask = plant_lesions(air, lungs, "NCP", np.random.default_rng(0), lesions)
    assert set(np.unique(hu)) == {-850.0, -550.0}
    np.testing.assert_array_equal(mask, hu == -550)
    assert (air == -850).all()


def test_a_lung_too_small_for_two_lesions_still_gets_two():
    lungs = np.zeros((2, 16, 16, 16), dtype=bool)
    lungs[0, 5:9, 5:9, 2:6] = lungs[1, 5:9, 5:9, 10:14] = True
    air = np.full((16, 16, 16), -850, dtype=np.float32)
    for seed in range(5):
        _, mask = plant_lesions(air, lungs, "CP", np.random.default_rng(seed))
        assert mask.any()
        assert not (mask & ~lungs.any(0)).any()


def test_written_phantoms_come_back_as_they_were(tmp_path):
    paths = write_phantoms(tmp_path, 4, seed=3, size=20)
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        "ct/NCP/0.nii.gz",
        "ct/CP/1.nii.gz",
        "ct/Normal/2.nii.gz",
        "ct/NCP/3.nii.gz",
    ]
    hu, mask = make_phantom("CP", (3, 1), size=20)
    array, spacing, _ = read_volume(paths[1])
    np.testing.assert_array_equal(array, hu)
    assert spacing == pytest.approx((16.0, 16.0, 16.0))
    lesions = nib.load(tmp_path / "masks/CP/1.nii.gz")
    assert lesions.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(lesions.dataobj).transpose(2, 1, 0), mask)
    np.testing.assert_array_equal(lesions.affine, nib.load(paths[1]).affine)
    first = [p.read_bytes() for p in paths]
    assert [p.read_bytes() for p in write_phantoms(tmp_path, 4, seed=3, size=20)] == first


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_phantom("COVID", 0), "label must be one of NCP, CP, Normal, got COVID"),
        (lambda: make_phantom("CP", 0, size=8), "size must be >= 16"),
        (lambda: make_phantom("CP", 0, noise=-1.0), "noise >= 0"),
        (lambda: Lesions(contrast=(300.0, 200.0)), "contrast must be LOW HIGH"),
        (lambda: Lesions(radius=(0.0, 1.0)), "radius must be LOW HIGH"),
        (lambda: Lesions(edge=0.0), "edge must be > 0"),
        (lambda: write_phantoms("unused", 2), "count must be >= 3"),
        (
            lambda: plant_lesions(
                np.zeros((4, 4, 4), np.float32),
                np.zeros((2, 4, 4, 4), bool),
                "CP",
                np.random.default_rng(0),
            ),
            "both lungs must have voxels",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
