import gzip
import struct

import nibabel
import numpy as np
import pytest
from nlran.volumes import read_volume
from papercommons.errors import DataError

sitk = pytest.importorskip("SimpleITK")


def chest():
    """HU without symmetry, int16."""
    array = np.full((20, 24, 28), 40, dtype=np.int16)
    array[3:15, 8:20, 4:16] = -800
    return array + np.random.default_rng(0).integers(-30, 30, array.shape).astype(np.int16)


def nifti(path, array):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return path


def metaimage(path, *, compressed=False):
    sitk.WriteImage(sitk.GetImageFromArray(chest()), str(path), compressed)
    return path


FORMS = [
    "ElementDataFile : {}\n",
    "  ElementDataFile = {}\n",
    "\tElementDataFile={}\n",
    "\rElementDataFile = {}\n",
    "\vElementDataFile == {}\n",
    "ElementDataFile\n= {}\n",
    "elementdatafile = LOCAL\nElementDataFile = {}\n",
    "Comment = a\rElementDataFile = LOCAL\nElementDataFile = {}\n",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_voxels_outside_the_folder_are_not_read_however_they_are_named(tmp_path, form, suffix):
    header = metaimage(tmp_path / "secret.mhd").read_text()
    head = header[: header.index("ElementDataFile")]
    inside = tmp_path / "in" / f"scan{suffix}"
    inside.parent.mkdir()
    inside.write_bytes((head + form.format("../secret.raw")).encode())
    with pytest.raises(DataError, match=r"outside its folder|does not say where the voxels are"):
        read_volume(inside)


def test_a_pointer_that_comes_late_is_refused(tmp_path):
    header = metaimage(tmp_path / "secret.mhd").read_text()
    inside = tmp_path / "in" / "scan.mha"
    inside.parent.mkdir()
    late = header.replace("ElementDataFile = ", "Comment = a\n" * 10_000 + "ElementDataFile = ../")
    inside.write_bytes(late.encode())
    with pytest.raises(DataError, match="does not say where the voxels are"):
        read_volume(inside)


@pytest.mark.parametrize(
    "form",
    ["data file: {}\n\n", "DataFile: {}\n\n", "# a\rdata file: {}\r\r", "{pad}data file: {}\n\n"],
)
def test_nrrd_voxels_outside_the_folder_are_not_read(tmp_path, form):
    metaimage(tmp_path / "secret.mhd")
    d, h, w = chest().shape
    head = (
        f"NRRD0004\ntype: int16\ndimension: 3\nsizes: {w} {h} {d}\nendian: little\nencoding: raw\n"
    )
    (tmp_path / "in").mkdir()
    text = head + form.format("../secret.raw", pad="# x\n" * 20_000)
    (tmp_path / "in" / "scan.nrrd").write_bytes(text.encode())
    with pytest.raises(DataError, match=r"outside its folder|does not say where the voxels are"):
        read_volume(tmp_path / "in" / "scan.nrrd")
    beside = head + "data file: voxels.bin\n\n"
    (tmp_path / "in" / "scan.nrrd").write_bytes(beside.encode())
    (tmp_path / "in" / "voxels.bin").write_bytes((tmp_path / "secret.raw").read_bytes())
    assert read_volume(tmp_path / "in" / "scan.nrrd").array.size == chest().size


@pytest.mark.parametrize("name", ["scan.mha", "scan.mhd", "scan.nrrd"])
def test_damaged_compressed_voxels_are_refused(tmp_path, name, capfd):
    path = metaimage(tmp_path / name, compressed=True)
    whole = read_volume(path)
    assert (np.sort(whole.array.ravel()) == np.sort(chest().ravel())).all()
    data = tmp_path / "scan.zraw" if name == "scan.mhd" else path
    raw = data.read_bytes()
    place = int(0.6 * len(raw))
    for damaged in (raw[:place] + bytes(20) + raw[place + 20 :], raw[:place]):
        data.write_bytes(damaged)
        with pytest.raises(DataError, match=r"not readable|cut off"):
            read_volume(path)
    assert capfd.readouterr().err == ""


def test_damaged_gzip_is_refused_though_all_voxels_are_there(tmp_path):
    path = nifti(tmp_path / "scan.nii.gz", chest())
    raw = path.read_bytes()
    assert read_volume(path).array.size == chest().size
    checksum = raw[:-8] + bytes(4) + raw[-4:]
    behind = raw + gzip.compress(bytes(65 << 20))
    for damaged, message in ((raw[:-8], "ended"), (checksum, "CRC"), (behind, "goes on behind")):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            read_volume(path)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mha", "scan.nrrd"])
def test_no_memory_is_taken_for_voxels_that_a_short_file_only_promises(tmp_path, name):
    path = tmp_path / name
    if ".nii" in name:
        header = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes()
        header = header[:40] + struct.pack("<4h", 3, 1000, 1000, 1000) + header[48:]
        path.write_bytes(gzip.compress(header) if name.endswith("gz") else header)
    elif name == "scan.mha":
        sizes = "NDims = 3\nDimSize = 1000 1000 1000\nElementType = MET_UCHAR\n"
        path.write_text(f"ObjectType = Image\n{sizes}ElementDataFile = LOCAL\n")
    else:
        sizes = "type: uint8\ndimension: 3\nsizes: 1000 1000 1000\nencoding: raw\n\n"
        path.write_text(f"NRRD0004\n{sizes}")
    with pytest.raises(DataError, match="promises 1,000,000,000 voxels, but is cut off"):
        read_volume(path)


def test_the_voxels_of_a_hdr_file_must_lie_beside_it(tmp_path):
    nifti(tmp_path / "secret.hdr", chest())
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "scan.hdr").write_bytes((tmp_path / "secret.hdr").read_bytes())
    try:
        (inside / "scan.img").symlink_to(tmp_path / "secret.img")
    except OSError:
        pytest.skip("links need rights here")
    with pytest.raises(DataError, match=r"outside its folder"):
        read_volume(inside / "scan.hdr")


def test_the_stored_type_is_told(tmp_path):
    for name, dtype in (("a.nii", np.int16), ("b.nii", np.float32), ("c.nii.gz", np.uint8)):
        array = np.clip(chest(), 0, 100).astype(dtype)
        assert read_volume(nifti(tmp_path / name, array)).stored == np.dtype(dtype).name
    raw = nibabel.Nifti1Image(chest(), np.eye(4)).to_bytes()
    swapped = nibabel.Nifti1Header(raw[:348]).as_byteswapped(">")
    body = chest().astype(">i2").tobytes(order="F")
    (tmp_path / "d.nii").write_bytes(swapped.binaryblock + struct.pack("4x") + body)
    assert read_volume(tmp_path / "d.nii").stored == "int16"
    assert read_volume(metaimage(tmp_path / "e.mha")).stored == "int16"
    np.save(tmp_path / "f.npy", chest().astype(np.float64))
    assert read_volume(tmp_path / "f.npy").stored == "float64"
