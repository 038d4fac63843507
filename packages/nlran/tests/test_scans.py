import os
import subprocess
import sys

import numpy as np
import pytest
from nlran.scans import find_scans, read_scan
from nlran.tables import read_lesion_slices
from papercommons.errors import DataError
from PIL import Image


def test_classes_have_the_papers_order_whatever_their_case(ct):
    scans = find_scans(ct)
    assert scans.classes == ["NCP", "CP", "Normal"]
    assert scans.patients_known
    assert len(scans) == 12
    assert {s.path: (s.label, s.patient) for s in scans.scans}["ncp/ncp1/b.npy"] == (0, "NCP/ncp1")
    assert len({s.patient for s in scans.scans}) == 6


def test_finding_scans_does_not_load_torch(ct):
    code = f"import sys; from nlran.scans import find_scans; find_scans({str(ct)!r}); "
    code += "from nlran.splits import split_scans; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_given_classes_choose_and_order(ct):
    scans = find_scans(ct, classes=["Normal", "NCP"])
    assert scans.classes == ["Normal", "NCP"]
    assert len(scans) == 8
    assert all(s.path.startswith(["normal", "ncp"][s.label]) for s in scans.scans)
    assert any("left out: CP" in note for note in scans.notes)
    with pytest.raises(DataError, match=r"no class Norml .*did you mean Normal"):
        find_scans(ct, classes=["NCP", "Norml"])


def test_other_classes_are_sorted(tmp_path, write_scan):
    for value, name in enumerate(("CT-2", "CT-0", "CT-1")):
        write_scan(tmp_path / "studies" / name / "study.npy", value)
    scans = find_scans(tmp_path)
    assert scans.classes == ["CT-0", "CT-1", "CT-2"]
    assert scans.layout.startswith("MosMedData")
    assert not scans.patients_known
    assert scans.scans[0].path == "studies/CT-0/study.npy"


def test_real_scans_are_found_and_read(shared_files):
    scans = find_scans(shared_files / "data" / "ct" / "volumes")
    assert [s.path for s in scans.scans] == [
        "CP/cap001.nii.gz",
        "NCP/P001.nii.gz",
        "Normal/normal001.nii.gz",
    ]
    assert [s.label for s in scans.scans] == [1, 0, 2]
    assert read_scan(scans, scans.scans[1]).array.shape == (148, 128, 128)


def test_covid_ct_md_subjects_are_patients(tmp_path, write_slices):
    for value, folder in enumerate(("COVID-19 subjects", "Cap subjects", "Normal subjects")):
        write_slices(tmp_path / folder / f"P{value}", seed=value)
    np.save(tmp_path / "Slice-level-labels.npy", np.zeros(3))
    scans = find_scans(tmp_path)
    assert scans.classes == ["NCP", "CP", "Normal"]
    assert scans.layout.startswith("COVID-CT-MD")
    assert scans.patients_known
    assert scans.scans[0].patient == "NCP/P0"


@pytest.fixture
def ccccii(tmp_path, write_slices):
    """Scans as CC-CCII lays them out, with its list, which names one more."""
    for value, (name, patient, scan) in enumerate(
        [("NCP", "16", "1164"), ("NCP", "16", "1165"), ("CP", "10", "3153"), ("Normal", "7", "9")]
    ):
        write_slices(tmp_path / name / patient / scan, range(1, 7), value)
    (tmp_path / "unzip_filenames.csv").write_text(
        "zip_file,label,patient_id,scan_id,n_slice\n"
        "a.zip,NCP,16,1164,6\na.zip,NCP,16,1165,6\na.zip,CP,10,3153,6\nb.zip,Normal,7,8,6\n"
    )
    return tmp_path


@pytest.mark.parametrize("name", ["lesions_slices.csv", "lesion_slices.csv"])
def test_ccccii_lists_are_recognised(ccccii, name):
    (ccccii / name).write_text("imgpath\nCP/10/3153/0002.png\nCP/10/3153/0003.png\n")
    scans = find_scans(ccccii)
    assert scans.layout.startswith("CC-CCII")
    assert {s.patient for s in scans.scans} == {"NCP/16", "CP/10", "Normal/7"}
    assert "1 of 4 scans listed by CC-CCII are not there, e.g. Normal/7/8" in scans.notes
    assert "2 slices of 1 scans are listed with lesions" in scans.notes
    assert read_lesion_slices(ccccii) == {"CP/10/3153": ["0002.png", "0003.png"]}


def test_clean_ccccii_drops_reorders_and_discards_slices(ccccii):
    before = find_scans(ccccii)
    (ccccii / "CT_cleaned.csv").write_text(
        "cls,pid,scan_id,is_seg,is_repeat,repeat_ids,re_order\n"
        "NCP,16,1164,0,1,discard,\nNCP,16,1165,0,1,2;5-6,\nCP,10,3153,0,0,,4-6+1-3\n"
        "Normal,7,9,0,1,reverse,\n"
    )
    after = find_scans(ccccii)
    assert after.skipped == (("NCP/16/1164", "discarded by Clean-CC-CCII's list"),)
    for path, kept in {
        "NCP/16/1165": [0, 2, 3],
        "CP/10/3153": [3, 4, 5, 0, 1, 2],
        "Normal/7/9": [5, 4, 3, 2, 1, 0],
    }.items():
        raw, clean = (
            read_scan(scans, next(s for s in scans.scans if s.path == path)).array
            for scans in (before, after)
        )
        assert np.array_equal(clean, raw[kept])


def test_published_splits_in_folders(tmp_path, write_scan):
    value = 0
    for split in ("training", "valid", "test"):
        for name in ("NCP", "CP"):
            write_scan(tmp_path / split / name / f"{split}.npy", value)
            value += 1
    scans = find_scans(tmp_path)
    assert {s.path: s.split for s in scans.scans}["training/CP/training.npy"] == "train"
    assert {s.split for s in scans.scans} == {"train", "val", "test"}
    assert scans.classes == ["NCP", "CP"]


def write_medmnist(path, **changes):
    random = np.random.RandomState(0)
    arrays = {}
    for split, count in (("train", 22), ("val", 11), ("test", 11)):
        arrays[f"{split}_images"] = random.randint(0, 255, (count, 28, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 11)[:, None].astype(np.uint8)
    np.savez(path, **(arrays | changes))
    return arrays


def test_medmnist_keeps_its_splits_and_numbers(tmp_path):
    arrays = write_medmnist(tmp_path / "organmnist3d.npz")
    scans = find_scans(tmp_path / "organmnist3d.npz")
    assert scans.classes == [str(number) for number in range(11)]
    assert len(scans) == 44
    scan = scans.scans[12]
    assert (scan.path, scan.label, scan.split) == ("organmnist3d.npz#train/12", 1, "train")
    volume = read_scan(scans, scan)
    assert np.array_equal(volume.array, arrays["train_images"][12])
    assert (volume.units, volume.geometry) == ("uint8", False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((22, 28, 28), np.uint8)}, "single 2-D slices"),
        ({"train_images": np.zeros((22, 28, 28, 3), np.uint8)}, "single 2-D slices"),
        ({"train_images": np.zeros((22, 8, 8, 8), np.float32)}, "must be uint8"),
        ({"val_labels": np.zeros((3, 1), int)}, "val_labels must be one integer"),
        ({"val_labels": np.full((11, 1), -1)}, "val_labels must be >= 0"),
        ({"train_images": np.array([{}] * 22)}, "not a readable .npz"),
    ],
)
def test_bad_medmnist_is_named(tmp_path, changes, message):
    write_medmnist(tmp_path / "bad.npz", **changes)
    with pytest.raises(DataError, match=message):
        find_scans(tmp_path / "bad.npz")


def write_manifest(root, text):
    (root / "m.csv").write_text(text, encoding="utf-8-sig")
    return root / "m.csv"


def test_a_manifest_decides_alone(ct):
    manifest = write_manifest(
        ct,
        "label;path;patient_id;split;age\n"
        "cp;ncp/ncp1/a.npy;p1;train;60\n\n"
        "Normal;CP/CP1/../CP1/a.npy;p2;validation;50\n",
    )
    scans = find_scans(ct, manifest=manifest)
    assert [(s.path, s.label, s.patient, s.split) for s in scans.scans] == [
        ("ncp/ncp1/a.npy", 0, "p1", "train"),
        ("CP/CP1/a.npy", 1, "p2", "val"),
    ]
    assert scans.classes == ["CP", "Normal"]
    assert scans.patients_known


def test_a_manifest_without_patients_says_so(ct):
    manifest = write_manifest(ct, "path,label\nncp/ncp1/a.npy,x\nCP/CP1/a.npy,y\n")
    scans = find_scans(ct, manifest=manifest)
    assert not scans.patients_known
    assert scans.scans[0].patient == scans.scans[0].path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column path and label in its first line"),
        ("path,class_name\na,b\n", "no column label in its first line .path, class_name."),
        ("path,label\n", "lists no scans"),
        ("path,label\nncp/ncp1/a.npy,\n", "line 2: label is empty"),
        ("path,label\n,x\n", "line 2: path is empty"),
        ("path,label\nncp/ncp1/z.npy,x\n", "line 2: ncp/ncp1/z.npy: no such file"),
        ("path,label\n../elsewhere.npy,x\n", "leads out of"),
        ("path,label\n/etc/passwd,x\n", "leads out of"),
        ("path,label\nm.csv,x\n", "not a scan that nlran reads"),
        ("path,label\na,x\na,y\n", "line 3: a stands in line 2 already"),
        ("path,label,split\na,x,dev\n", "split is 'dev'; expected train, val or test"),
        ("path,label,split\na,x,train\nb,y,\n", "line 3: split is empty; give all or none"),
        ("path,label,patient_id\na,x,\nb,y,1\n", "line 2: patient_id is empty"),
        ('path,label\n"a,x\n', "not a readable csv"),
        (
            "path,label,patient_id\nncp/ncp1/a.npy,x,7\nncp/ncp1/b.npy,y,7\n",
            "patient 7 is in two classes: ncp/ncp1/a.npy is x, ncp/ncp1/b.npy is y",
        ),
        ("path,label\nncp/ncp1/a.npy,x\nncp/ncp1/b.npy,x\n", "only one class found, x"),
    ],
)
def test_bad_manifests_are_one_line(ct, text, message):
    with pytest.raises(DataError, match=message) as caught:
        find_scans(ct, manifest=write_manifest(ct, text))
    assert "\n" not in str(caught.value)


def test_missing_scans_of_a_manifest_can_be_skipped(ct):
    text = "path,label\nncp/ncp1/z.npy,x\nncp/ncp1/a.npy,x\nCP/CP1/a.npy,y\n"
    scans = find_scans(ct, manifest=write_manifest(ct, text), skip_bad=True)
    assert len(scans) == 2
    assert scans.skipped == (("ncp/ncp1/z.npy", "no such file or folder"),)


def test_binary_manifest(ct):
    (ct / "m.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(DataError, match="not a readable csv in UTF-8"):
        find_scans(ct, manifest=ct / "m.csv")


def test_missing_and_empty_folders(tmp_path, write_scan):
    with pytest.raises(DataError, match="no such folder"):
        find_scans(tmp_path / "ct")
    with pytest.raises(DataError, match="no scans in it"):
        find_scans(tmp_path)
    write_scan(tmp_path / "a.npy")
    with pytest.raises(DataError, match="scans without class folders"):
        find_scans(tmp_path)
    with pytest.raises(DataError, match="one scan; expected a set"):
        find_scans(tmp_path / "a.npy")


def test_one_class_and_an_empty_class(ct):
    (ct / "CP").rename(ct.parent / "elsewhere")
    (ct / "normal").rename(ct.parent / "elsewhere2")
    with pytest.raises(DataError, match="only one class found, NCP"):
        find_scans(ct)
    (ct / "CP").mkdir()
    with pytest.raises(DataError, match="CP: class without scans"):
        find_scans(ct)


def test_a_folder_too_high_is_guessed(ct):
    with pytest.raises(DataError, match=f"or was {ct} meant"):
        find_scans(ct.parent, classes=[ct.name])


def test_unknown_class_folders_are_named(ct, write_scan):
    write_scan(ct / "backup" / "x.npy")
    with pytest.raises(DataError, match=r"unknown class folder 'backup' .*--classes CP,NCP,Normal"):
        find_scans(ct)
    assert len(find_scans(ct, classes=["NCP", "CP", "Normal"])) == 12


def test_a_folder_of_masks_is_no_class(ct, write_scan):
    write_scan(ct / "masks" / "CP" / "CP1" / "a.npy")
    scans = find_scans(ct)
    assert len(scans) == 12
    assert any("taken for masks" in note for note in scans.notes)


def test_single_slices_are_refused(tmp_path, write_slices):
    for name in ("COVID", "non-COVID"):
        write_slices(tmp_path / name)
    with pytest.raises(DataError, match="single 2-D slices cannot be used"):
        find_scans(tmp_path)


def test_what_is_no_scan_is_counted_not_dropped(ct):
    (ct / "CP" / "CP1" / "notes.txt").write_text("x")
    Image.new("L", (8, 8)).save(ct / "CP" / "CP1" / "preview.png")
    (ct / "CP" / ".DS_Store").write_text("x")
    scans = find_scans(ct)
    assert len(scans) == 12
    assert scans.notes == ("left out, as no scans: 1 .txt, 1 .png",)


def test_dicom_beside_another_scan_is_refused(ct):
    (ct / "CP" / "CP1" / "slice.dcm").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds DICOM files and another scan .a\.npy."):
        find_scans(ct)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_out_of_the_folder_are_refused(ct, tmp_path_factory, write_scan, write_slices):
    outside = tmp_path_factory.mktemp("outside")
    write_scan(outside / "x.npy", 99)
    write_slices(outside / "slices")
    (ct / "CP" / "link.npy").symlink_to(outside / "x.npy")
    with pytest.raises(DataError, match=r"link\.npy: link out of the folder"):
        find_scans(ct)
    (ct / "CP" / "link.npy").unlink()
    write_slices(ct / "CP" / "CP3")
    (ct / "CP" / "CP3" / "0009.png").symlink_to(outside / "slices" / "0001.png")
    with pytest.raises(DataError, match=r"0009\.png: link out"):
        find_scans(ct)
    (ct / "CP" / "CP3" / "0009.png").unlink()
    (ct / "linked.npy").symlink_to(outside / "x.npy")
    with pytest.raises(DataError, match="leads out of"):
        find_scans(ct, manifest=write_manifest(ct, "path,label\nlinked.npy,x\n"))


def test_the_same_scan_in_two_classes_is_an_error(ct):
    (ct / "CP" / "CP1" / "other name.npy").write_bytes((ct / "ncp/ncp2/b.npy").read_bytes())
    with pytest.raises(DataError, match="the same scan in two classes: CP/CP1/other name"):
        find_scans(ct)
    assert len(find_scans(ct, check=False).copies) == 1


def test_the_same_slices_in_two_splits_are_an_error(tmp_path, write_slices):
    for value, name in enumerate(("NCP", "CP")):
        write_slices(tmp_path / "train" / name / "1", seed=value)
        write_slices(tmp_path / "test" / name / "2", seed=value + 2)
    assert len(find_scans(tmp_path)) == 4
    write_slices(tmp_path / "test" / "CP" / "3", range(10, 14), seed=1)
    for number in range(4):
        same = (tmp_path / "train" / "CP" / "1" / f"{number:04d}.png").read_bytes()
        (tmp_path / "test" / "CP" / "3" / f"{number + 10:04d}.png").write_bytes(same)
    with pytest.raises(DataError, match="the same scan in two splits"):
        find_scans(tmp_path)


def test_scans_alike_but_for_one_voxel_are_no_copies(tmp_path):
    array = np.zeros((40, 100, 100), np.int16)
    for place, name in enumerate(("NCP", "CP")):
        (tmp_path / name).mkdir()
        array[10, 0, 0] = place  # not in a part that is compared first
        np.save(tmp_path / name / "x.npy", array)
    assert find_scans(tmp_path).copies == []


def test_copies_in_a_class_count_as_one_patient(ct):
    (ct / "CP" / "CP2" / "c.npy").write_bytes((ct / "CP/CP1/a.npy").read_bytes())
    scans = find_scans(ct)
    assert len({s.patient for s in scans.scans}) == 5
    assert any(note.startswith("copies of a scan count as one patient") for note in scans.notes)


def test_names_under_two_classes_are_noted(ct, write_scan):
    for name, value in (("CP", 50), ("ncp", 51)):
        write_scan(ct / name / "P1" / "a.npy", value)
    scans = find_scans(ct)
    assert len({s.patient for s in scans.scans}) == 8
    assert any(note.startswith("1 names stand under two classes (e.g. P1)") for note in scans.notes)


def test_a_limit_takes_all_classes_and_many_patients(ct):
    scans = find_scans(ct).limit(2)
    assert [s.label for s in scans.scans].count(0) == 2
    assert len({s.patient for s in scans.scans}) == 6
