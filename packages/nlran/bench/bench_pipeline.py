"""Seconds from a file to its heat map, and reading against plain nibabel and pydicom.

``python -m pytest packages/nlran/bench/bench_pipeline.py -s --device cpu`` (or cuda), with the
scans under ``../shared/data/ct``. Values are tested; times are only printed.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from nlran.heatmaps import heat_maps, to_input_grid
from nlran.model import nlran_base
from nlran.preparation import Preparation, prepare, to_scan_grid, to_unit
from nlran.volumes import read_volume
from papercommons.testing.timing import compare_speed

PREPARATION = Preparation()


def plain_nifti(path):
    image = nib.as_closest_canonical(nib.load(path))
    return np.ascontiguousarray(image.get_fdata(dtype=np.float32).T[:, ::-1, ::-1])


def plain_dicom(folder):
    slices = [pydicom.dcmread(file) for file in folder.glob("*.dcm")]
    slices.sort(key=lambda one: one.ImagePositionPatient[2])
    return np.stack(
        [
            one.pixel_array.astype(np.float32) * one.RescaleSlope + one.RescaleIntercept
            for one in slices
        ]
    ).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "plain"),
    [("volumes/NCP/P001.nii.gz", plain_nifti), ("dicom_P001", plain_dicom)],
    ids=["nifti", "dicom"],
)
def test_reading(name, plain, shared_files, record):
    path = shared_files / "data/ct" / name
    array = read_volume(path).array
    np.testing.assert_array_equal(array, np.maximum(plain(path), -1024))
    speed = compare_speed(lambda: read_volume(path), lambda: plain(path), rounds=5)
    record(
        measured=f"reading {name}",
        size=" x ".join(map(str, array.shape)),
        ours=f"{1e3 * speed.ours_s:.0f} ms",
        plain=f"{1e3 * speed.reference_s:.0f} ms",
        **speed.ratios(),
        memory=None,
    )


@pytest.mark.parametrize("kind", ["mask-trunk", "cam", "gradcam-stage1"])
def test_from_file_to_heat_map(kind, device, shared_files, record):
    """The plain column is the network without a map: at ratio 1 the map costs nothing."""
    path = shared_files / "data/ct/volumes/NCP/P001.nii.gz"
    network = nlran_base().eval().to(device)
    volume = read_volume(path)
    values, grid = prepare(volume, PREPARATION)
    x = to_unit(torch.from_numpy(values)[None, None].to(device), PREPARATION)

    def explain():
        _, maps = heat_maps(network, x, [kind])
        return to_input_grid(maps[kind], PREPARATION.size)[0].cpu().numpy()

    @torch.inference_mode()
    def classify():
        return network(x).cpu()

    heat = explain()
    steps = {
        "reading": lambda: read_volume(path),
        "preparing": lambda: prepare(volume, PREPARATION),
        "to the scan's grid": lambda: to_scan_grid(heat, grid),
    }
    seconds = {name: compare_speed(step, step, rounds=3).ours_s for name, step in steps.items()}
    speed = compare_speed(explain, classify, rounds=3)
    assert to_scan_grid(heat, grid).shape == volume.array.shape
    record(
        measured=f"file to {kind} ("
        + ", ".join(f"{k} {v:.2f} s" for k, v in seconds.items())
        + ")",
        size=" x ".join(map(str, PREPARATION.size)),
        ours=f"{speed.ours_s:.2f} s",
        plain=f"{speed.reference_s:.2f} s",
        **speed.ratios(),
        memory=None,
    )
