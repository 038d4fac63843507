import numpy as np
import pytest
from nlran.masks import bare_name, find_mask
from papercommons.errors import DataError
from PIL import Image


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("P1.nii.gz", "P1"),
        ("P1.v2.NII", "P1.v2"),
        ("P1.mhd", "P1"),
        ("1.2.840.77", "1.2.840.77"),
        ("scan.v1", "scan.v1"),
        (".npy", ".npy"),
    ],
)
def test_only_suffixes_of_formats_are_dropped(name, bare):
    assert bare_name(name) == bare


def test_a_mask_has_the_relative_name_in_any_format(tmp_path):
    own = write(tmp_path / "CP" / "7" / "a.mha")
    write(tmp_path / "NCP" / "7" / "a.npy")
    for scan in ("CP/7/a.mha", "CP/7/a.nii.gz", "CP/7/a"):
        assert find_mask(tmp_path, scan) == own
    assert find_mask(tmp_path, "CP/7/b.nii.gz") is None
    write(tmp_path / "CP" / "7" / "1.2.840.77.nii.gz")
    write(tmp_path / "CP" / "7" / "1.2.840.nii.gz")
    assert find_mask(tmp_path, "CP/7/1.2.840.77").name == "1.2.840.77.nii.gz"
    assert find_mask(tmp_path, "CP/7/1.2.840").name == "1.2.840.nii.gz"


def test_a_mask_may_be_a_folder(tmp_path):
    folder = tmp_path / "P1"
    folder.mkdir()
    assert find_mask(tmp_path, "P1.nii") is None
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "1.png")
    assert find_mask(tmp_path, "P1.nii") == folder


def test_a_unique_name_is_found_anywhere(tmp_path):
    mask = write(tmp_path / "lungs" / "P1.nii.gz")
    write(tmp_path / "lungs" / "P1.txt")
    assert find_mask(tmp_path, "CP/P1.npy") == mask
    write(tmp_path / "other" / "P1.npy")
    with pytest.raises(DataError, match=r"lungs.P1\.nii\.gz and other.P1\.npy could both be"):
        find_mask(tmp_path, "CP/P1.npy")
    assert find_mask(tmp_path, "other/P1.nii").name == "P1.npy"


def test_two_formats_of_one_mask_are_ambiguous(tmp_path):
    write(tmp_path / "P1.nii.gz")
    write(tmp_path / "P1.npy")
    with pytest.raises(DataError, match=r"could both be the mask of P1\.mha"):
        find_mask(tmp_path, "P1.mha")
    assert find_mask(tmp_path, "P1.npy").name == "P1.npy"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="absent: no such folder"):
        find_mask(tmp_path / "absent", "P1.nii")
