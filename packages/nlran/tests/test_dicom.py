"""One reader, whose series are all written by the helpers here: so over 400 lines in one file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from nlran import dicom
from nlran.volumes import read_volume, volume_kind
from papercommons.errors import DataError
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
)

ROWS, COLUMNS, COUNT = 16, 12, 6
STORED = np.arange(COUNT * ROWS * COLUMNS, dtype=np.uint16).reshape(COUNT, ROWS, COLUMNS) + 100
HU = STORED.astype(np.float32) - 1024


def header(path: Path, **fields: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = fields.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = f"1.2.{abs(hash(path.name))}"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    standard = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SeriesInstanceUID": "1.2.3",
        "Rows": ROWS,
        "Columns": COLUMNS,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }
    for name, value in {**standard, **fields}.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def write_slice(path: Path, index: int, **fields: Any) -> Path:
    """Write slice `index` of the test scan: 2.5 mm between slices, pixels of 0.7 x 0.8 mm."""
    path.parent.mkdir(exist_ok=True)
    standard = {
        "ImagePositionPatient": [-100, -150, -300 + 2.5 * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.8],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "InstanceNumber": index + 1,
    }
    pixels = fields.pop("pixels", STORED[index % COUNT])
    dataset = header(path, **{**standard, **fields})
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, **fields: Any) -> Path:
    """Write the test scan under names that are in another order than the slices."""
    for index in range(COUNT):
        write_slice(folder / f"{(index * 5) % 7:03}.dcm", index, **fields)
    return folder


def test_real_slices_have_the_known_values(shared_files):
    folder = shared_files / "data" / "ct" / "dicom_P001"
    volume = read_volume(folder)
    assert volume.array.shape == (12, 512, 512)
    assert volume.spacing == (2.0, 0.748046875, 0.748046875)
    assert (volume.kind, volume.units) == ("dicom", "HU")
    for values, expected in zip(
        volume.array, json.loads((folder / "expected.json").read_text()), strict=True
    ):
        assert values.sum(dtype=np.float64) == expected["hu_sum"]
        assert (values.min(), values.max()) == (expected["hu_min"], expected["hu_max"])
        assert values[256, 256] == expected["centre_hu"]
    world = volume.affine @ [[0, 11], [0, 0], [0, 0], [1, 1]]
    np.testing.assert_allclose(world[:3, 0], [172.1259765625, 328.1259765625, -226.1])
    np.testing.assert_allclose(world[2, 1], -204.1)


def test_names_do_not_matter(shared_files, tmp_path):
    folder = shared_files / "data" / "ct" / "dicom_P001"
    slices = sorted(folder.glob("*.dcm"))
    for number, file in zip(np.random.default_rng(0).permutation(len(slices)), slices, strict=True):
        shutil.copyfile(file, tmp_path / f"IM{number}")
    assert volume_kind(tmp_path) == "dicom"
    one, other = read_volume(folder), read_volume(tmp_path)
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_array_equal(one.affine, other.affine)


def test_written_series_is_in_order(tmp_path):
    volume = read_volume(write_series(tmp_path / "scan"))
    np.testing.assert_array_equal(volume.array, HU)
    assert volume.spacing == (2.5, 0.7, 0.8)
    assert volume.stored == "uint16"
    np.testing.assert_allclose(volume.affine @ [1, 2, 3, 1], [97.6, 148.6, -297.5, 1])


@pytest.mark.parametrize(
    ("axes", "turned"),
    [
        ([-1, 0, 0, 0, -1, 0], HU[:, ::-1, ::-1]),  # prone picture: rows and columns reversed
        ([0, 1, 0, 1, 0, 0], HU[:, :, :].transpose(0, 2, 1)),
    ],
)
def test_other_axial_orientations_are_turned(tmp_path, axes, turned):
    volume = read_volume(write_series(tmp_path / "scan", ImageOrientationPatient=axes))
    np.testing.assert_array_equal(volume.array, turned)
    stored = volume.in_file_order(volume.array)
    upward = np.cross(axes[:3], axes[3:])[2] > 0
    np.testing.assert_array_equal(stored, HU if upward else HU[::-1])


def test_coronal_slices_become_axial(tmp_path):
    for index in range(COUNT):
        write_slice(
            tmp_path / "scan" / f"{index}.dcm",
            index,
            ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
            ImagePositionPatient=[0, 2.5 * index, 0],
        )
    volume = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array, HU.transpose(1, 0, 2)[::-1])
    assert volume.spacing == (0.7, 2.5, 0.8)


def test_rescaling_is_by_slice(tmp_path):
    for index in range(COUNT):
        slope, intercept = 1 + index / 4, -1000 - index
        write_slice(
            tmp_path / "scan" / f"{index}", index, RescaleSlope=slope, RescaleIntercept=intercept
        )
    volume = read_volume(tmp_path / "scan")
    slopes, intercepts = 1 + np.arange(COUNT) / 4, -1000 - np.arange(COUNT)
    np.testing.assert_allclose(
        volume.array, STORED * slopes[:, None, None] + intercepts[:, None, None]
    )


def test_padding_becomes_air(tmp_path):
    signed = STORED.astype(np.int16)
    signed[:, 0, :3] = -2000
    signed[:, 1, 0] = 3000
    signed[:, 1, 1] = 3005
    for index in range(COUNT):
        write_slice(
            tmp_path / "scan" / f"{index}.dcm",
            index,
            pixels=signed[index],
            PixelRepresentation=1,
            RescaleIntercept=0,
            PixelPaddingValue=3000,
            PixelPaddingRangeLimit=3010,
        )
    array = read_volume(tmp_path / "scan").array
    assert (array[:, 0, :3] == -1024).all()
    assert (array[:, 1, :2] == -1024).all()
    np.testing.assert_array_equal(array[:, 2:], STORED[:, 2:])


def test_padding_of_unsigned_form_is_that_of_signed_pixels(tmp_path):
    signed = STORED.astype(np.int16)
    signed[:, 0] = -1500
    for index in range(COUNT):
        write_slice(
            tmp_path / "scan" / f"{index}.dcm", index, pixels=signed[index], PixelRepresentation=1
        )
        dataset = pydicom.dcmread(tmp_path / "scan" / f"{index}.dcm")
        dataset.RescaleIntercept = 0
        dataset.add_new("PixelPaddingValue", "US", 65536 - 1500)
        dataset.save_as(tmp_path / "scan" / f"{index}.dcm")
    assert (read_volume(tmp_path / "scan").array[:, 0] == -1024).all()


def test_localizers_other_modalities_and_small_series_are_left_out(tmp_path):
    folder = write_series(tmp_path / "scan")
    write_slice(folder / "scout", 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slice(folder / "pet.dcm", 1, Modality="PT")
    write_slice(folder / "thin.dcm", 1, SeriesInstanceUID="1.2.4")
    write_slice(folder / "dose.dcm", 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Rows=None)
    (folder / "readme.txt").write_text("none")
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, HU)
    notes = "; ".join(volume.notes)
    for words in ("localizer", "PT, not CT", "not DICOM", "secondary", "series of 1 slices"):
        assert words in notes


def test_nothing_but_localizers_is_no_scan(tmp_path):
    write_series(tmp_path / "scan", ImageType=["LOCALIZER"])
    with pytest.raises(DataError, match=r"scan: no CT slices \(6 of 6 files left out: a localizer"):
        read_volume(tmp_path / "scan")


def test_two_equal_series_are_refused(tmp_path):
    folder = write_series(tmp_path / "scan")
    for index in range(COUNT):
        write_slice(folder / f"b{index}.dcm", index, SeriesInstanceUID="1.2.4")
    with pytest.raises(DataError, match="two series of 6 slices"):
        read_volume(folder)


def test_missing_slice_is_named_or_interpolated(tmp_path):
    for index in (0, 1, 2, 4, 5):
        write_slice(tmp_path / "scan" / f"{index}.dcm", index)
    message = r"missing slices: 5 mm between 2\.dcm and 4\.dcm, usually 2\.5; .*--allow-gaps"
    with pytest.raises(DataError, match=message):
        read_volume(tmp_path / "scan")
    volume = read_volume(tmp_path / "scan", allow_gaps=True)
    np.testing.assert_allclose(volume.array, HU, rtol=1e-6)
    assert "missing slices in 1 places" in volume.notes[0]


def test_a_huge_gap_is_not_filled(tmp_path):
    folder = write_series(tmp_path / "scan")
    write_slice(folder / "far.dcm", 0, ImagePositionPatient=[-100, -150, 1e9])
    with pytest.raises(DataError, match="more than the limit"):
        read_volume(folder, allow_gaps=True)


def test_uneven_spacing_is_resampled_in_its_place(tmp_path):
    heights = np.array([0, 2.0, 4.1, 6.0, 8.0, 10.0])
    for index, height in enumerate(heights):
        flat = np.full((ROWS, COLUMNS), round(100 * height), dtype=np.uint16)
        write_slice(
            tmp_path / "scan" / f"{index}.dcm",
            index,
            ImagePositionPatient=[0, 0, height],
            pixels=flat,
            RescaleIntercept=0,
        )
    volume = read_volume(tmp_path / "scan")
    assert volume.spacing[0] == 2.0
    np.testing.assert_allclose(volume.array[:, 0, 0], [0, 200, 400, 600, 800, 1000], rtol=1e-5)
    assert "spacing varies by 5.0%; resampled to 6 even slices" in volume.notes[0]


def test_spacing_within_one_percent_is_left(tmp_path):
    folder = write_series(tmp_path / "scan")
    write_slice(folder / "001.dcm", 3, ImagePositionPatient=[-100, -150, -292.49])
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, HU)
    assert not any("resampled" in note for note in volume.notes)


def tilted(folder: Path, degrees: float) -> Path:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return write_series(folder, ImageOrientationPatient=[1, 0, 0, 0, float(c), float(-s)])


def test_gantry_tilt_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gantry tilt of 15\.0 degrees"):
        read_volume(tilted(tmp_path / "scan", 15))
    read_volume(tilted(tmp_path / "straight", 0.5))
    write_series(tmp_path / "told", GantryDetectorTilt=-12.5)
    with pytest.raises(DataError, match=r"gantry tilt of 12\.5 degrees"):
        read_volume(tmp_path / "told")


def test_oblique_stack_along_its_normal_is_no_tilt(tmp_path):
    c, s = np.cos(0.3), np.sin(0.3)
    for index in range(COUNT):
        write_slice(
            tmp_path / "scan" / f"{index}.dcm",
            index,
            ImageOrientationPatient=[1, 0, 0, 0, float(c), float(-s)],
            ImagePositionPatient=[0, float(s * 2.5 * index), float(c * 2.5 * index)],
        )
    volume = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array, HU)
    np.testing.assert_allclose(volume.spacing, (2.5, 0.7, 0.8))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ImagePositionPatient": [-100, -150, -297.5]}, r"extra\.dcm.* at the same position"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "mixed orientations"),
        ({"Rows": 8, "pixels": STORED[0, :8]}, "mixed image sizes"),
        ({"PixelSpacing": [0.9, 0.9]}, r"mixed pixel spacings: .*extra\.dcm differ"),
        ({"ImagePositionPatient": None}, r"extra\.dcm: has no ImagePositionPatient"),
        ({"PixelSpacing": None}, r"extra\.dcm: has no PixelSpacing"),
        ({"SamplesPerPixel": 3}, r"extra\.dcm: a colour picture"),
        ({"NumberOfFrames": 3}, r"extra\.dcm: 3 frames but positions of 1"),
    ],
)
def test_slices_that_do_not_fit_are_named(tmp_path, fields, message):
    folder = write_series(tmp_path / "scan")
    write_slice(folder / "extra.dcm", COUNT, **fields)
    with pytest.raises(DataError, match=message):
        read_volume(folder)


def test_slice_beside_the_others_is_named(tmp_path):
    folder = write_series(tmp_path / "scan")
    write_slice(folder / "001.dcm", 3, ImagePositionPatient=[-80, -150, -292.5])
    with pytest.raises(DataError, match=r"001\.dcm: shifted sideways"):
        read_volume(folder)


@pytest.mark.parametrize("kept", [0, 100, 300, 0.5, 0.9])
def test_cut_files_are_named(tmp_path, kept):
    folder = write_series(tmp_path / "scan")
    raw = (folder / "003.dcm").read_bytes()
    (folder / "003.dcm").write_bytes(raw[: kept if kept in (0, 100, 300) else int(kept * len(raw))])
    with pytest.raises(DataError, match=r"003\.dcm: "):
        read_volume(folder)


def test_cut_compressed_files_are_named(shared_files, tmp_path):
    for file in (shared_files / "data" / "ct" / "dicom_P001").glob("*.dcm"):
        shutil.copyfile(file, tmp_path / file.name)
    raw = file.read_bytes()
    (tmp_path / file.name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=rf"{file.name}: not readable as DICOM"):
        read_volume(tmp_path)


@pytest.mark.parametrize("preamble", [True, False])
def test_deflated_files_are_refused_before_they_grow(tmp_path, monkeypatch, preamble):
    folder = write_series(tmp_path / "scan")
    dataset = pydicom.dcmread(folder / "003.dcm")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(folder / "003.dcm", enforce_file_format=True)
    if not preamble:
        (folder / "003.dcm").write_bytes((folder / "003.dcm").read_bytes()[132:])
    monkeypatch.setattr("zlib.decompress", lambda *_: pytest.fail("inflated"))
    with pytest.raises(DataError, match=r"003\.dcm: deflated DICOM is not read"):
        read_volume(folder)


def test_compression_without_decoder_names_the_package(shared_files, monkeypatch):
    from pydicom.pixels.decoders import base

    class Absent:
        is_available = False

    monkeypatch.setattr(base, "get_decoder", lambda uid: Absent())
    with pytest.raises(DataError, match=r"JPEG Lossless.*pip install python-gdcm"):
        read_volume(shared_files / "data" / "ct" / "dicom_P001")


def test_size_is_checked_before_decoding(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "scan")
    monkeypatch.setattr(dicom, "_decode", lambda file: pytest.fail("decoded"))
    with pytest.raises(DataError, match="more than the limit"):
        read_volume(folder, max_bytes=4 * HU.size - 1)


def test_a_single_slice_is_refused(tmp_path):
    write_slice(tmp_path / "scan" / "1.dcm", 0)
    for path in (tmp_path / "scan", tmp_path / "scan" / "1.dcm"):
        with pytest.raises(DataError, match="single 2-D slice; nlran needs volumes"):
            read_volume(path)


def sequence(**fields: Any) -> pydicom.Sequence:
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return pydicom.Sequence([item])


def test_enhanced_file_with_many_frames(tmp_path):
    dataset = header(
        tmp_path / "scan.dcm", SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=COUNT
    )
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = sequence(PixelSpacing=[0.7, 0.8])
    shared.PlaneOrientationSequence = sequence(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelValueTransformationSequence = sequence(RescaleSlope=1, RescaleIntercept=-1024)
    order = [3, 1, 0, 5, 4, 2]
    for index in order:
        frame = Dataset()
        frame.PlanePositionSequence = sequence(ImagePositionPatient=[0, 0, 2.5 * index])
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    dataset.PixelData = STORED[order].tobytes()
    dataset.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    volume = read_volume(tmp_path / "scan.dcm")
    np.testing.assert_array_equal(volume.array, HU)
    assert volume.spacing == (2.5, 0.7, 0.8)


@pytest.mark.parametrize("spacing", [[0, 0], [-0.7, 0.8]])
def test_pixel_spacing_must_be_above_zero(tmp_path, spacing):
    write_series(tmp_path / "scan", PixelSpacing=spacing)
    with pytest.raises(DataError, match="PixelSpacing must be above 0"):
        read_volume(tmp_path / "scan")
