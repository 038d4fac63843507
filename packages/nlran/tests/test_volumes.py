from __future__ import annotations

import gzip
import itertools
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nlran.volumes import Volume, read_volume, volume_kind
from papercommons.errors import DataError
from PIL import Image

SHAPE = (20, 24, 28)
SPACING = (2.0, 0.75, 0.5)
CODES = [
    "".join(signs)
    for axes in itertools.permutations([("R", "L"), ("A", "P"), ("S", "I")])
    for signs in itertools.product(*axes)
]


def chest(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """HU without symmetry, int16: soft tissue with a block of lung and some air about it."""
    array = np.full(shape, 40, dtype=np.int16)
    array[:, :4] = -1000
    array[3:15, 8:20, 4:16] = -800
    array += np.random.default_rng(0).integers(-30, 30, shape).astype(np.int16)
    return array


def affine_of(spacing: tuple[float, float, float] = SPACING) -> np.ndarray:
    """Affine of a (D, H, W) array in radiological order."""
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, -spacing[2]], [0, -spacing[1], 0], [spacing[0], 0, 0]]
    affine[:3, 3] = 17, -40, 8
    return affine


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write a (D, H, W) array with its affine."""
    nibabel.save(nibabel.Nifti1Image(array, affine_of() if affine is None else affine), path)
    return path


@pytest.mark.parametrize("code", CODES)
def test_nifti_of_each_orientation_gives_one_array(tmp_path, code):
    image = nibabel.Nifti1Image(chest(), affine_of())
    start = nibabel.orientations.axcodes2ornt("SPL")
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(code))
    turned = image.as_reoriented(turn)
    nibabel.save(turned, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    np.testing.assert_array_equal(volume.array, chest())
    assert volume.array.dtype == np.float32
    assert volume.array.flags.c_contiguous
    assert volume.spacing == SPACING
    np.testing.assert_allclose(volume.affine, affine_of())
    np.testing.assert_array_equal(volume.in_file_order(volume.array), turned.get_fdata())
    np.testing.assert_allclose(volume.file_affine(), turned.affine)


def test_volume_unpacks_and_tells_its_units(tmp_path):
    array, spacing, affine = read_volume(nifti(tmp_path / "scan.nii.gz", chest()))
    assert (array.shape, spacing, affine.shape) == (SHAPE, SPACING, (4, 4))
    windowed = np.clip(chest() // 8 + 128, 0, 255).astype(np.uint8)
    assert read_volume(nifti(tmp_path / "windowed.nii", windowed)).units == "uint8"
    scaled = nibabel.Nifti1Image(windowed, affine_of())
    scaled.header.set_slope_inter(8, -1024)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    volume = read_volume(tmp_path / "scaled.nii")
    assert volume.units == "HU"
    np.testing.assert_allclose(volume.array, windowed * 8.0 - 1024)


def test_real_nifti_has_the_lungs_upright(shared_files):
    volume = read_volume(shared_files / "data" / "ct" / "volumes" / "NCP" / "P001.nii.gz")
    assert volume.array.shape == (148, 128, 128)
    assert volume.spacing == (2.0, 2.9921875, 2.9921875)
    assert volume.notes == ()
    source = nibabel.load(shared_files / "data" / "ct" / "volumes" / "NCP" / "P001.nii.gz")
    np.testing.assert_allclose(volume.file_affine(), source.affine)
    bone = (volume.array > 300).sum(axis=(0, 2))
    assert bone[64:].sum() > bone[:64].sum()  # the spine is posterior


def test_oblique_scan_is_kept_and_sheared_one_refused(tmp_path):
    turn = np.eye(4)
    c, s = np.cos(0.2), np.sin(0.2)
    turn[:3, :3] = [[1, 0, 0], [0, c, -s], [0, s, c]]
    volume = read_volume(nifti(tmp_path / "oblique.nii", chest(), turn @ affine_of()))
    np.testing.assert_allclose(volume.affine, turn @ affine_of(), atol=1e-6)
    for degrees, refused in ((0.5, False), (12.0, True)):
        tilted = affine_of()
        tilted[1, 0] = SPACING[0] * np.tan(np.radians(degrees))
        path = nifti(tmp_path / f"tilt{degrees}.nii", chest(), tilted)
        if refused:
            with pytest.raises(DataError, match=r"tilt12\.0\.nii: gantry tilt of 12\.0 degrees"):
                read_volume(path)
        else:
            read_volume(path)


def test_trailing_axis_is_squeezed_and_others_refused(tmp_path):
    path = nifti(tmp_path / "four.nii", chest()[..., None])
    np.testing.assert_array_equal(read_volume(path).array, chest())
    nifti(tmp_path / "series.nii", np.stack([chest()] * 2, axis=3))
    with pytest.raises(DataError, match=r"series.nii: 4-D data of shape \(20, 24, 28, 2\)"):
        read_volume(tmp_path / "series.nii")
    nifti(tmp_path / "flat.nii", chest()[0])
    nifti(tmp_path / "one.nii", chest()[:1])
    for name in ("flat.nii", "one.nii"):
        with pytest.raises(DataError, match="single 2-D slice; nlran needs volumes"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    array = chest().astype(np.float32)
    array[1, 2, 3] = value
    with pytest.raises(DataError, match=r"scan.nii: 1 voxels are NaN or infinite"):
        read_volume(nifti(tmp_path / "scan.nii", array))


def test_impossible_voxel_sizes_are_refused(tmp_path):
    for length in (0.0, np.nan, 500.0):
        affine = affine_of()
        affine[2, 0] = length
        image = nibabel.Nifti1Image(chest(), np.eye(4))
        image.header["sform_code"] = 1
        for row, values in zip("xyz", affine, strict=False):
            image.header[f"srow_{row}"] = values
        image.header["qform_code"] = 0
        raw = image.header.binaryblock + bytes(4) + chest().tobytes(order="F")
        (tmp_path / "scan.nii").write_bytes(raw)
        with pytest.raises(DataError, match=r"not possible|not readable"):
            read_volume(tmp_path / "scan.nii")


def test_what_does_not_look_like_a_chest_is_noted(tmp_path):
    assert read_volume(nifti(tmp_path / "chest.nii", chest())).notes == ()
    stored = read_volume(nifti(tmp_path / "stored.nii", chest() + 1024))
    assert "does not look like a chest CT in HU" in stored.notes[0]


def test_missing_orientation_is_noted(tmp_path):
    image = nibabel.Nifti1Image(chest(), None)
    nibabel.save(image, tmp_path / "scan.nii")
    assert "tells no orientation" in read_volume(tmp_path / "scan.nii").notes[0]


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.npy", "scan.npz", "scan.mha"])
@pytest.mark.parametrize("kept", [0, 200, 0.5])
def test_truncated_files_are_named(tmp_path, name, kept):
    path = tmp_path / name
    write(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw)) if kept == 0.5 else kept])
    with pytest.raises(DataError, match=rf"{re.escape(name)}: .*(not readable|cut)"):
        read_volume(path)


def write(path: Path, array: np.ndarray | None = None) -> None:
    array = chest() if array is None else array
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, volume=array)
    elif path.suffix in (".mha", ".mhd", ".nrrd"):
        sitk = pytest.importorskip("SimpleITK")
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path), True)
    else:
        nifti(path, array)


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz", "s.npy", "s.npz", "s.mha", "s.nrrd"])
def test_size_is_checked_before_decoding(tmp_path, name, monkeypatch):
    path = tmp_path / name
    write(path)
    limit = 4 * chest().size
    read_volume(path, max_bytes=limit)
    with pytest.raises(DataError, match="more than the limit"):
        read_volume(path, max_bytes=limit - 1)


def test_header_that_promises_terabytes_is_refused(tmp_path):
    path = nifti(tmp_path / "bomb.nii", chest())
    raw = bytearray(path.read_bytes())
    raw[40:48] = struct.pack("<4h", 3, 32000, 32000, 32000)
    with gzip.open(tmp_path / "bomb.nii.gz", "wb") as file:
        file.write(raw)
    with pytest.raises(DataError, match="32,000 x 32,000 x 32,000 voxels"):
        read_volume(tmp_path / "bomb.nii.gz")
    raw[108:112] = struct.pack("<f", 2e9)
    with gzip.open(tmp_path / "bomb.nii.gz", "wb") as file:
        file.write(raw)
    with pytest.raises(DataError, match="a header of 2e"):
        read_volume(tmp_path / "bomb.nii.gz")


def test_metaimage_has_its_place_in_the_world(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.ascontiguousarray(chest()[::-1]))
    image.SetSpacing(SPACING[::-1])
    image.SetDirection([1, 0, 0, 0, 1, 0, 0, 0, -1])
    image.SetOrigin([-17.0, 40.0, 8 + 2.0 * 19])
    for name in ("scan.mha", "scan.mhd", "scan.nrrd"):
        sitk.WriteImage(image, str(tmp_path / name))
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array, chest())
        np.testing.assert_allclose(volume.affine, affine_of())
        assert (volume.spacing, volume.kind) == (SPACING, "metaimage")


def test_metaimage_data_outside_the_folder_is_not_opened(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    (tmp_path / "scan").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(chest()), str(tmp_path / "scan.mhd"))
    header = (tmp_path / "scan.mhd").read_text()
    for target in ("../scan.raw", str(tmp_path / "scan.raw")):
        inside = tmp_path / "scan" / "scan.mhd"
        inside.write_text(header.replace("scan.raw", target))
        with pytest.raises(DataError, match="outside its folder"):
            read_volume(inside)
    (tmp_path / "scan" / "scan.raw").symlink_to(tmp_path / "scan.raw")
    inside.write_text(header)
    with pytest.raises(DataError, match="outside its folder"):
        read_volume(inside)
    inside.write_text(header.replace("scan.raw", "scan%03d.raw 1 20 1"))
    with pytest.raises(DataError, match="in several files"):
        read_volume(inside)


def test_metaimage_without_simpleitk_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "scan.mha").write_bytes(b"ObjectType = Image\n")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(DataError, match=r'\.mha file needs SimpleITK, .* "nlran\[itk\]"'):
        read_volume(tmp_path / "scan.mha")


def test_numpy_arrays_with_and_without_geometry(tmp_path):
    np.save(tmp_path / "scan.npy", chest())
    volume = read_volume(tmp_path / "scan.npy")
    np.testing.assert_array_equal(volume.array, chest())
    assert (volume.geometry, volume.spacing, volume.units) == (False, (1.0, 1.0, 1.0), "HU")
    np.savez(tmp_path / "a.npz", other=np.zeros(3), scan=chest(), spacing=np.array(SPACING))
    volume = read_volume(tmp_path / "a.npz")
    assert (volume.geometry, volume.spacing) == (True, SPACING)
    turned = affine_of() @ np.diag([1, -1, 1, 1])
    np.savez(tmp_path / "b.npz", volume=chest()[:, ::-1], extra=chest(), affine=turned)
    np.testing.assert_array_equal(read_volume(tmp_path / "b.npz").array, chest())
    np.save(tmp_path / "grey.npy", np.zeros(SHAPE, dtype=np.uint8))
    assert read_volume(tmp_path / "grey.npy").units == "uint8"


def test_numpy_files_that_are_no_scan(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}] * 8).reshape(2, 2, 2), allow_pickle=True)
    np.save(tmp_path / "complex.npy", np.zeros(SHAPE, dtype=complex))
    np.savez(tmp_path / "two.npz", a=chest(), b=chest())
    np.savez(tmp_path / "spacing.npz", volume=chest(), spacing=np.ones(2))
    for name, message in {
        "objects.npy": "voxels of type object",
        "complex.npy": "voxels of type complex128",
        "two.npz": "holds a, b; expected an array named volume",
        "spacing.npz": r"spacing has shape \(2,\); expected \(3,\)",
    }.items():
        with pytest.raises(DataError, match=f"{name}: {message}"):
            read_volume(tmp_path / name)


def pictures(folder: Path, names: list[str], mode: str = "L") -> Path:
    """Write slices; slice n is grey n + 1."""
    folder.mkdir()
    for number, name in enumerate(names):
        Image.new("L", (24, 16), number + 1).convert(mode).save(folder / name)
    return folder


def test_slices_are_ordered_by_number(tmp_path):
    names = [f"slice{n}.png" for n in (1, 2, 9, 10, 11, 100)]
    volume = read_volume(pictures(tmp_path / "scan", names))
    assert volume.array.shape == (6, 16, 24)
    assert volume.array[:, 0, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert (volume.units, volume.kind, volume.geometry) == ("uint8", "slices", False)
    for mode in ("RGB", "RGBA", "P", "LA"):
        volume = read_volume(pictures(tmp_path / mode, names, mode))
        assert volume.array[:, 5, 5].tolist() == [1, 2, 3, 4, 5, 6]
    (tmp_path / "RGB" / "notes.txt").write_text("none")
    assert "1 files that are not pictures" in read_volume(tmp_path / "RGB").notes[0]


def test_jpeg_slices(tmp_path):
    volume = read_volume(pictures(tmp_path / "scan", ["1.jpg", "2.JPG"], "RGB"))
    assert volume.array[:, 0, 0].tolist() == [1, 2]


def test_slices_that_do_not_make_a_scan(tmp_path):
    names = [f"{n:03}.png" for n in range(4)]
    folders = {
        kind: pictures(tmp_path / kind, names)
        for kind in ("size", "colour", "deep", "cut", "many", "eps")
    }
    Image.new("L", (16, 24)).save(folders["size"] / "002.png")
    Image.new("RGB", (24, 16), (9, 9, 10)).save(folders["colour"] / "002.png")
    Image.fromarray(np.zeros((16, 24), dtype=np.uint16)).save(folders["deep"] / "002.png")
    (folders["cut"] / "002.png").write_bytes((folders["cut"] / "002.png").read_bytes()[:45])
    Image.new("L", (24, 16)).save(folders["many"] / "2.png")
    Image.new("L", (24, 16)).save(folders["eps"] / "002.png", "EPS")
    for kind, message in {
        "size": r"002.png: 16 x 24 pixels, but 24 x 16 in 000.png",
        "colour": r"002.png: a colour picture",
        "deep": r"002.png: more than 8 bits a pixel",
        "cut": r"002.png: not readable as a picture",
        "eps": r"002.png: not readable as a picture \(cannot identify",
        "many": r"002.png and 2.png have the same number",
    }.items():
        with pytest.raises(DataError, match=message):
            read_volume(folders[kind])


def test_single_pictures_are_refused(tmp_path):
    folder = pictures(tmp_path / "scan", ["1.png"])
    for path in (folder, folder / "1.png"):
        with pytest.raises(DataError, match="single 2-D slice; nlran needs volumes"):
            read_volume(path)


@pytest.mark.parametrize(("side", "message"), [(99_000, "bomb"), (9000, "more than the limit")])
def test_huge_pictures_are_refused_before_decoding(tmp_path, monkeypatch, side, message):
    folder = pictures(tmp_path / "scan", ["1.png", "2.png"])
    raw = (folder / "1.png").read_bytes()
    header = b"IHDR" + struct.pack(">2I", side, side) + raw[24:29]
    crc = struct.pack(">I", zlib.crc32(header))
    (folder / "1.png").write_bytes(raw[:12] + header + crc + raw[33:])
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DataError, match=message):
        read_volume(folder, max_bytes=2**28)


def test_paths_that_are_no_scan(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "scan.img").write_bytes(b"")
    for name, message in {
        "absent": "no such file or folder",
        "empty": "a folder without slices; expected",
        "notes.txt": "not a scan; expected",
        "scan.img": r"give the \.hdr file",
    }.items():
        with pytest.raises(DataError, match=f"{name}: .*{message}"):
            read_volume(tmp_path / name)
        assert volume_kind(tmp_path / name) is None


def test_kinds_are_told_by_name_and_content(tmp_path):
    for name in ("a.nii", "b.NII.GZ", "c.mha", "d.npz", "e.dcm", "f.csv"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "1.2.840.10008.77").write_bytes(bytes(128) + b"DICM")
    kinds = [volume_kind(path) for path in sorted(tmp_path.iterdir())]
    assert kinds == ["dicom", "nifti", "nifti", "metaimage", "numpy", "dicom", None]
    assert volume_kind(pictures(tmp_path / "scan", ["1.png"])) == "slices"
    (tmp_path / "scan" / "._2.dcm").write_bytes(b"")
    assert volume_kind(tmp_path / "scan") == "slices"


def test_volumes_need_neither_torch_nor_readers():
    code = (
        "import sys, nlran.volumes, nlran.dicom, nlran.readers, nlran.slices, nlran.preparation; "
    )
    code += "print([m for m in ('torch', 'nibabel', 'pydicom', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_axes_go_back_to_the_file(tmp_path):
    order = ((2, True), (0, False), (1, True))
    volume = Volume(np.zeros((2, 3, 4)), (1, 1, 1), np.eye(4), order=order)
    marked = np.zeros((2, 3, 4))
    marked[0, 1, 2] = 1
    assert np.argwhere(volume.in_file_order(marked)).tolist() == [[1, 1, 1]]
    np.testing.assert_allclose(volume.file_affine() @ [1, 1, 1, 1], [0, 1, 2, 1])
