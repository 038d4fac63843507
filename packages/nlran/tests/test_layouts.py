import os

import pytest
from nlran.layouts import find_scan_files
from nlran.scans import find_scans
from nlran.volumes import read_volume
from papercommons.errors import DataError
from PIL import Image

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


def names(*places):
    return [name for _, name in find_scan_files([str(place) for place in places])]


def test_scans_are_found_at_any_depth_with_their_names(tmp_path, write_slices):
    for name in ("a/x.nii.gz", "b/x.nii.gz", "b/c/y.npy", "b/.hidden.npy", ".git/z.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    write_slices(tmp_path / "a" / "1.2.840.77")
    assert names(tmp_path) == ["a/1.2.840.77", "a/x.nii.gz", "b/c/y.npy", "b/x.nii.gz"]
    assert names(tmp_path / "b", tmp_path / "a" / "x.nii.gz", tmp_path / "a" / "1.2.840.77") == [
        *("c/y.npy", "x.nii.gz", "x.nii.gz", "1.2.840.77"),
    ]
    for path, name in find_scan_files([str(tmp_path)]):
        assert path == tmp_path / name


def test_a_picture_beside_scans_does_not_make_them_one(tmp_path, write_scan):
    for name in ("a.npy", "b.npy"):
        write_scan(tmp_path / name)
    Image.new("L", (8, 8)).save(tmp_path / "preview.png")
    assert names(tmp_path) == ["a.npy", "b.npy"]


def test_a_scan_may_be_the_folder_one_stands_in(tmp_path, monkeypatch, write_slices):
    write_slices(tmp_path / "P1" / "inner")
    write_slices(tmp_path / "P1")
    monkeypatch.chdir(tmp_path / "P1")
    assert names(".") == ["P1"]
    monkeypatch.chdir(tmp_path / "P1" / "inner")
    assert names("..") == ["P1"]


def test_masks_beside_scans_are_passed_over(ct, caplog, write_scan):
    write_scan(ct / "masks" / "CP" / "CP1" / "a.npy")
    assert len(names(ct)) == 12
    assert "its folder of masks is passed over" in caplog.text
    assert names(ct / "masks") == ["CP/CP1/a.npy"]


def test_places_without_scans(tmp_path, write_scan):
    with pytest.raises(DataError, match="absent: no such file or folder"):
        names(tmp_path / "absent")
    write_scan(tmp_path / "masks" / "a.npy")
    with pytest.raises(DataError, match="no scans in it; expected NIfTI"):
        names(tmp_path)


@needs_links
def test_a_link_loop_does_not_multiply_scans(ct):
    (ct / "CP" / "again").symlink_to(ct / "CP", target_is_directory=True)
    (ct / "CP" / "CP2" / "once more").symlink_to(ct / "CP" / "CP1", target_is_directory=True)
    scans = find_scans(ct)
    assert len(scans) == 12
    assert scans.notes == ("left out, as no scans: 2 folder reached twice",)
    assert len(names(ct)) == 12


@needs_links
def test_links_out_of_a_place_are_refused(ct, tmp_path_factory):
    (ct / "CP" / "link").symlink_to(tmp_path_factory.mktemp("outside"), target_is_directory=True)
    with pytest.raises(DataError, match="link: link out of the folder"):
        names(ct)


def test_given_classes_may_be_absent_on_request(ct):
    given = ["Normal", "CAP", "NCP", "CP"]
    with pytest.raises(DataError, match=r"no class CAP \(seen: CP, NCP, Normal\)"):
        find_scans(ct, classes=given)
    scans = find_scans(ct, classes=given, complete=False)
    assert scans.classes == given
    assert {scan.label for scan in scans.scans} == {0, 2, 3}
    (ct / "CP").rename(ct / "CAPE")
    with pytest.raises(DataError, match=r"no class CAP .*did you mean CAPE"):
        find_scans(ct, classes=given, complete=False)


def test_one_class_is_enough_where_the_others_may_be_absent(tmp_path, write_scan):
    write_scan(tmp_path / "CP" / "a.npy")
    scans = find_scans(tmp_path, classes=["NCP", "CP"], complete=False)
    assert [scan.label for scan in scans.scans] == [1]
    with pytest.raises(DataError, match="no class NCP"):
        find_scans(tmp_path, classes=["NCP", "CP"])


def test_rows_of_other_classes_are_counted(ct):
    text = "path,label\nncp/ncp1/a.npy,x\nCP/CP1/a.npy,y\nCP/CP1/b.npy,z\n"
    (ct / "m.csv").write_text(text)
    scans = find_scans(ct, manifest=ct / "m.csv", classes=["y", "x"])
    assert scans.notes == ("left out: 1 scans of other classes",)


def test_a_ccccii_patient_in_two_classes_is_an_error(tmp_path, write_slices):
    for value, scan in enumerate(("NCP/16/1164", "CP/16/4000", "CP/10/3153", "Normal/7/9")):
        write_slices(tmp_path / scan, seed=value)
    (tmp_path / "lesions_slices.csv").write_text("imgpath\nCP/10/3153/0002.png\n")
    with pytest.raises(DataError, match=r"patient 16 is in two classes: CP/16/4000 is CP, NCP/16"):
        find_scans(tmp_path)
    patients = {scan.patient for scan in find_scans(tmp_path, check=False).scans}
    assert patients == {"16", "CP/10", "Normal/7"}


@needs_links
def test_slices_linked_from_another_scan_are_refused(tmp_path, write_slices):
    write_slices(tmp_path / "P1", range(2))
    write_slices(tmp_path / "P2", range(2, 4))
    (tmp_path / "P1" / "0002.png").symlink_to(tmp_path / "P1" / "0001.png")
    assert read_volume(tmp_path / "P1").array.shape == (3, 20, 20)
    (tmp_path / "P1" / "0003.png").symlink_to(tmp_path / "P2" / "0003.png")
    with pytest.raises(DataError, match=r"0003\.png: link out of the scan's folder"):
        read_volume(tmp_path / "P1")
    (tmp_path / "x.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "P3").mkdir()
    (tmp_path / "P3" / "x.dcm").symlink_to(tmp_path / "x.dcm")
    with pytest.raises(DataError, match=r"x\.dcm: link out of the scan's folder"):
        read_volume(tmp_path / "P3")
