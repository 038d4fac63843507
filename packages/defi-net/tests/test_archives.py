from __future__ import annotations

import numpy as np
import pytest
from defi_net.layouts import find_samples
from defi_net.reading import read_sample
from papercommons.errors import DataError
from PIL import Image


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(path)


def rows(root, **options):
    return [
        (s.name, s.mask and s.mask.relative_to(root).as_posix(), s.method, s.split, s.source)
        for s in find_samples(root, **options)
    ]


def test_defacto(tmp_path):
    touch(
        tmp_path, "inpainting_img/img/0_000000000260.tif", "inpainting_img/img/9_000000000260.tif"
    )
    masks = "inpainting_annotations/probe_mask"
    touch(tmp_path, f"{masks}/0_000000000260.jpg", f"{masks}/9_000000000260.jpg")
    touch(tmp_path, "inpainting_annotations/inpaint_mask/0_000000000260.tif")
    assert rows(tmp_path) == [
        (
            f"inpainting_img/img/{k}_000000000260.tif",
            f"{masks}/{k}_000000000260.jpg",
            "defacto",
            "",
            "000000000260",
        )
        for k in (0, 9)
    ]


def test_autosplice(tmp_path):
    touch(tmp_path, "Forged_JPEG100/71_0.jpg", "Forged_JPEG75/71_1.jpg", "Authentic/71.jpg")
    touch(tmp_path, "Mask/71_mask.png")
    assert rows(tmp_path) == [
        ("Authentic/71.jpg", None, "authentic", "", "71"),
        ("Forged_JPEG100/71_0.jpg", "Mask/71_mask.png", "dalle2-jpeg100", "", "71"),
        ("Forged_JPEG75/71_1.jpg", "Mask/71_mask.png", "dalle2-jpeg75", "", "71"),
    ]
    touch(tmp_path, "Forged_JPEG90/5_0.jpg")
    with pytest.raises(DataError, match=r"5_0\.jpg: no mask .*5_mask\.png"):
        find_samples(tmp_path)


@pytest.mark.parametrize("table", [True, False])
def test_cocoglide(tmp_path, table):
    touch(tmp_path, "fake/glide_inpainting_val2017_114871_up.png", "real/dining table_114871.png")
    touch(tmp_path, "mask/dining table_114871_mask.png")
    if table:
        (tmp_path / "table.csv").write_text(
            "﻿real,fake,mask,prompt\nreal/dining table_114871.png,"
            "fake/glide_inpainting_val2017_114871_up.png,mask/dining table_114871_mask.png,x\n",
            encoding="utf-8",
        )
    mask = "mask/dining table_114871_mask.png"
    assert rows(tmp_path) == [
        ("fake/glide_inpainting_val2017_114871_up.png", mask, "glide", "", "114871"),
        ("real/dining table_114871.png", None, "authentic", "", "114871"),
    ]


def test_tgif_names(tmp_path):
    tmp_path = tmp_path / "val"  # of the set's own folders the outer ones say nothing
    touch(
        tmp_path,
        "original/testing/90_orig.png",
        "SD2-sp/testing/90_mask_bbox.png_ps_mask.png_sd2_0.png",
        "PS-sp/training/90_mask_segm.png_ps_2.png",
        "SD2-fr/validation/90_mask_bbox.png_sd2-512_1.png",
        "flux1dev-fr/testing/90_mask_segm.png_flux1dev-1024_1.png",
        "masks/testing/90_mask_bbox.png",
        "masks/testing/90_mask_bbox.png_ps_mask.png",
        "masks/testing/90_mask_segm.png",
        "masks/testing/90_mask_bbox_512.png",
        "masks/testing/90_mask_segm_1024.png",
        "masks-flux/testing/90_mask_segm_1024.png",
    )
    found = {(method, split): mask for _, mask, method, split, _ in rows(tmp_path)}
    assert found == {
        ("authentic", "test"): None,
        ("sd2-sp", "test"): "masks/testing/90_mask_bbox.png_ps_mask.png",
        ("ps-sp", "train"): "masks/testing/90_mask_segm.png",
        ("sd2-fr", "val"): "masks/testing/90_mask_bbox_512.png",
        ("flux1dev-fr", "test"): "masks-flux/testing/90_mask_segm_1024.png",
    }
    touch(tmp_path, "SD2-sp/91_mask_bbox.png_ps_mask.png_sd2_0.png")
    with pytest.raises(
        DataError, match=r"no mask 91_mask_bbox\.png_ps_mask\.png or 91_mask_bbox\.png"
    ):
        find_samples(tmp_path)


def test_iid_tags(tmp_path):
    touch(tmp_path, "images/0001_GC.png", "labels/0001_GC.png", "images/0001_TE.png")
    touch(tmp_path, "labels/0001_TE.png")
    assert [row[2:] for row in rows(tmp_path, layout="iid")] == [
        ("GC", "", "0001"),
        ("TE", "", "0001"),
    ]
    touch(tmp_path / "folders", "NS/7.png", "NS/7_mask.png", "SG/7.png", "SG/7_mask.png")
    assert [row[2:] for row in rows(tmp_path / "folders", layout="iid")] == [
        ("NS", "", "7"),
        ("SG", "", "7"),
    ]


def test_the_real_deepfill_examples(shared_files):
    root = shared_files / "data" / "inpainting" / "deepfillv2_places2"
    samples = find_samples(root)
    assert [s.method for s in samples] == ["deepfill", "authentic"] * 4
    assert samples[0].source == samples[1].source == "case1"
    forged, mask = read_sample(samples[0])
    raw, none = read_sample(samples[1])
    assert forged.shape == (512, 680, 3)
    assert not none.any()
    change = np.abs(forged.astype(int) - raw)
    assert change[~mask].max() <= 1  # the specification's section 7.4
    assert change[mask].max() > 50


def test_absent_folders_are_named(tmp_path):
    touch(tmp_path, "inpainting_img/img/0_1.tif")
    with pytest.raises(DataError, match="probe_mask: no such folder"):
        find_samples(tmp_path)
    with pytest.raises(DataError, match="no folder mask"):
        find_samples(tmp_path, layout="cocoglide")
    with pytest.raises(DataError, match="no folder Mask"):
        find_samples(tmp_path, layout="autosplice")
