"""Measures of one map against reference values, scikit-learn, SciPy and plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from papercommons.metrics.localization import (
    PROTOCOLS,
    Confusion,
    batch_metrics,
    boundary_f1,
    confusion,
    dilate,
    pixel_metrics,
    trufor_regions,
)
from papercommons.metrics.roc import binary_auc

sklearn_metrics = pytest.importorskip("sklearn.metrics")
ndimage = pytest.importorskip("scipy.ndimage")


@pytest.fixture(scope="module")
def vectors():
    """What the public evaluators named in the module say of the same maps."""
    with np.load(Path(__file__).parent / "data/localization.npz") as file:
        return dict(file)


def blob_map(seed, height=24, width=31, dtype=np.float32):
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    mask[4:15, 6:20] = True
    values = 1 / (1 + np.exp(-(mask * 1.5 - 0.7 + random.normal(size=mask.shape))))
    if dtype == np.uint8:
        return np.round(255 * values).astype(np.uint8), mask
    return values.astype(dtype), mask


def test_imdl_reference_values(vectors):
    names = {"f1": "f1", "iou": "iou", "accuracy": "acc", "auc": "auc"}
    for place, name in enumerate(vectors["names"]):
        prob, gt = vectors["prob"][place], vectors["gt"][place]
        if not gt.any():
            assert list(pixel_metrics(prob, gt)) == ["false_positive_rate"]
            continue
        found = pixel_metrics(prob, gt, protocol="imdl")
        for ours, theirs in names.items():
            if ours == "auc" and not name.startswith("blob"):
                continue  # theirs is wrong for ties and for one kind of pixel
            assert found[ours] == pytest.approx(vectors[f"ben_{theirs}_origin"][place], abs=1e-6)


@pytest.mark.parametrize("name", ["f1", "iou", "accuracy"])
def test_imdl_reference_values_of_the_complement(vectors, name):
    for place in range(len(vectors["gt"])):
        found = confusion(vectors["prob"][place], vectors["gt"][place])
        values = [getattr(way, name)() for way in (found, found.complement())]
        if vectors["names"][place] == "const_half" and name == "iou":
            continue  # theirs thresholds the complement instead
        if not vectors["gt"][place].any() and name != "accuracy":
            values = [0, 0] if name == "f1" else values
        short = name[:3] if name == "accuracy" else name
        assert values[1] == pytest.approx(vectors[f"ben_{short}_reverse"][place], abs=1e-6)
        assert max(values) == pytest.approx(vectors[f"ben_{short}_double"][place], abs=1e-6)


def test_imdl_reference_values_where_some_pixels_count(vectors):
    for place in range(len(vectors["gt"])):
        prob, gt = vectors["prob"][place], vectors["gt"][place]
        valid = vectors["shape_mask"][place][0]
        found = confusion(prob, gt, valid=valid)
        assert found.f1() == pytest.approx(vectors["ben_f1_shape"][place], abs=1e-6)
        assert found.iou() == pytest.approx(vectors["ben_iou_shape"][place], abs=1e-6)
        if vectors["names"][place].startswith("blob") and (gt & valid).any():
            auc = pixel_metrics(prob, gt, valid=valid)["auc"]
            assert auc == pytest.approx(vectors["ben_auc_shape"][place], abs=1e-6)


@pytest.mark.parametrize(("stretch", "kind"), [(True, "minmax"), (False, "raw")])
def test_official_reference_values(vectors, stretch, kind):
    for place in range(len(vectors["gt"])):
        prob, gt = vectors["prob"][place], vectors["gt"][place]
        found = confusion(prob, gt, inclusive=True, stretch=stretch)
        expected = {k: vectors[f"off_{kind}_{k}"][place] for k in ("f1macro", "f1binary", "iou")}
        assert found.f1_macro() == pytest.approx(expected["f1macro"], abs=1e-6)
        assert found.f1() == pytest.approx(expected["f1binary"], abs=1e-6)
        assert found.iou() == pytest.approx(expected["iou"], abs=1e-6)
        auc = vectors[f"off_{kind}_auc"][place]
        assert binary_auc(prob, gt) == pytest.approx(auc, abs=1e-6, nan_ok=True)
        if gt.any():
            whole = pixel_metrics(prob, gt, protocol="official", stretch=stretch)
            assert whole["f1_macro"] == pytest.approx(expected["f1macro"], abs=1e-6)
            assert whole["auc"] == pytest.approx(auc, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(("stretch", "kind"), [(True, "minmax"), (False, "raw")])
def test_official_means_over_a_data_set(vectors, stretch, kind):
    """The published script counts an undefined AUC as 0."""
    pairs = list(zip(vectors["prob"], vectors["gt"], strict=True))
    found = [confusion(*pair, inclusive=True, stretch=stretch) for pair in pairs]
    means = [
        np.mean([one.f1_macro() for one in found]),
        np.mean([one.iou() for one in found]),
        np.mean(np.nan_to_num([binary_auc(*pair) for pair in pairs])),
    ]
    expected = vectors[f"off_{kind}_dataset_mean_f1macro_iou_auc"]
    np.testing.assert_allclose(means, expected, atol=1e-6)


def check_trufor(prob, gt, gt0, gt1, best, fixed):
    altered, authentic = trufor_regions(gt)
    np.testing.assert_array_equal(altered, gt1 == 1)
    np.testing.assert_array_equal(authentic, gt0)
    found = pixel_metrics(prob, gt, protocol="trufor")
    assert found["f1_best"] == pytest.approx(best, abs=1e-6)
    assert found["f1_fixed"] == pytest.approx(fixed, abs=1e-6)


TRUFOR = ("prob", "gt", "gt0", "gt1", "f1_best", "f1_fixed05")


def test_trufor_reference_values(vectors):
    for values in zip(*(vectors[f"trufor_{name}"] for name in TRUFOR), strict=True):
        check_trufor(*values)


def test_trufor_reference_values_of_all_maps(shared_files):
    with np.load(shared_files / "parity/defi-net/trufor_metrics.npz") as file:
        for values in zip(*(file[name] for name in TRUFOR), strict=True):
            check_trufor(*values)


@given(
    seed=st.integers(0, 1000),
    count=st.integers(2, 60),
    levels=st.integers(1, 9),
    dtype=st.sampled_from([np.uint8, np.float32, np.float64, np.int64]),
)
def test_auc_equals_scikit_learn(seed, count, levels, dtype):
    random = np.random.default_rng(seed)
    scores = random.integers(levels, size=count)
    scores = (scores - 4).astype(dtype) if dtype == np.int64 else scores.astype(dtype)
    if np.dtype(dtype).kind == "f":
        scores /= levels
    truth = random.random(count) < 0.5
    truth[:2] = True, False
    expected = sklearn_metrics.roc_auc_score(truth, scores)
    assert binary_auc(scores, truth) == pytest.approx(expected, abs=1e-12)
    opposite = binary_auc(scores, ~truth)
    assert opposite == pytest.approx(1 - expected, abs=1e-12)


def test_auc_sees_the_order_alone():
    prob, mask = blob_map(0)
    area = binary_auc(prob, mask)
    assert binary_auc(prob.astype(np.float64) ** 3, mask) == pytest.approx(area, abs=1e-12)
    assert binary_auc(1 - prob.astype(np.float64), mask) == pytest.approx(1 - area, abs=1e-12)
    assert math.isnan(binary_auc(prob, np.ones_like(mask)))
    assert math.isnan(binary_auc((255 * prob).astype(np.uint8), np.zeros_like(mask)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_8_bit_maps_are_255ths(protocol):
    levels, mask = blob_map(1, 40, 50, dtype=np.uint8)
    mask[2:30, 2:35] = True
    as_bytes = pixel_metrics(levels, mask, protocol=protocol)
    as_floats = pixel_metrics(levels / 255, mask, protocol=protocol)
    assert as_bytes == pytest.approx(as_floats, abs=1e-12)


def test_thresholds_and_identities():
    prob, mask = blob_map(2)
    prob[0, 0] = prob[5, 7] = 0.5  # one authentic, one altered pixel at the threshold
    strict, inclusive = confusion(prob, mask), confusion(prob, mask, inclusive=True)
    assert (inclusive.tp - strict.tp, inclusive.fp - strict.fp) == (1, 1)
    truth, called = mask.ravel(), prob.ravel() > 0.5
    matrix = sklearn_metrics.confusion_matrix(truth, called)
    assert [[strict.tn, strict.fp], [strict.fn, strict.tp]] == matrix.tolist()
    found = pixel_metrics(prob, mask)
    assert found["iou"] == pytest.approx(found["f1"] / (2 - found["f1"]))
    assert found["precision"] == pytest.approx(sklearn_metrics.precision_score(truth, called))
    assert found["recall"] == pytest.approx(sklearn_metrics.recall_score(truth, called))
    assert found["accuracy"] == pytest.approx((truth == called).mean())


def test_the_official_rule_does_not_see_scale():
    prob, mask = blob_map(3)
    faint = (0.3 + 0.01 * prob.astype(np.float64)).astype(np.float64)
    ours = pixel_metrics(prob.astype(np.float64), mask, protocol="official")
    assert pixel_metrics(faint, mask, protocol="official") == pytest.approx(ours)
    assert pixel_metrics(faint, mask, protocol="official", stretch=False)["f1"] == 0
    assert pixel_metrics(faint, mask, protocol="imdl")["f1"] == 0


def test_an_authentic_image_has_false_positives_alone():
    prob, nothing = np.linspace(0.2, 0.7, 100).reshape(10, 10), np.zeros((10, 10))
    calm = {"false_positive_rate": pytest.approx((prob > 0.5).mean())}
    assert pixel_metrics(prob, nothing) == calm
    assert pixel_metrics(prob, nothing, protocol="trufor") == calm
    stretched = {"false_positive_rate": pytest.approx((prob >= 0.45).mean())}
    assert pixel_metrics(prob, nothing, protocol="official") == stretched
    still = pixel_metrics(np.full((9, 9), 0.9), np.zeros((9, 9)), protocol="official")
    assert still == {"false_positive_rate": 0}
    part = np.zeros((10, 10))
    part[0, 0] = 1
    assert pixel_metrics(prob, part, valid=1 - part).keys() == {"false_positive_rate"}


def test_undefined_is_nan():
    full = pixel_metrics(np.full((20, 20), 0.9), np.ones((20, 20)))
    assert math.isnan(full["auc"])
    assert full["f1"] == 1
    small = np.zeros((20, 20))
    small[3:6, 3:6] = 1  # an erosion by 15 leaves nothing
    found = pixel_metrics(np.full((20, 20), 0.9), small, protocol="trufor")
    assert all(map(math.isnan, found.values()))
    assert math.isnan(boundary_f1(np.zeros((5, 5)), np.ones((5, 5))))


@given(
    seed=st.integers(0, 1000),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    radius=st.integers(0, 9),
)
def test_dilation_equals_scipy(seed, height, width, radius):
    mask = np.random.default_rng(seed).random((height, width)) < 0.05
    before = mask.copy()
    expected = ndimage.maximum_filter(mask, 2 * radius + 1)
    np.testing.assert_array_equal(dilate(mask, radius), expected)
    np.testing.assert_array_equal(mask, before)


def test_the_band_is_what_lies_near_the_edge():
    prob, mask = blob_map(4)
    near = np.zeros_like(mask)
    for i, j in np.ndindex(mask.shape):
        window = mask[max(0, i - 2) : i + 3, max(0, j - 2) : j + 3]
        near[i, j] = window.any() and not window.all()
    expected = sklearn_metrics.f1_score(mask[near], prob[near] > 0.5)
    assert boundary_f1(prob, mask, width=2) == pytest.approx(expected)
    assert boundary_f1(mask.astype(np.float32), mask) == 1
    blunt = dilate(mask, 3).astype(np.float32)
    assert boundary_f1(blunt, mask) < pixel_metrics(blunt, mask)["f1"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_is_its_images(dtype, device):
    maps = [blob_map(seed) for seed in range(3)]
    levels = np.stack([np.round(1023 * p) / 1023 for p, _ in maps]).astype(np.float32)
    prob = torch.from_numpy(levels)[:, None].to(dtype)
    mask = torch.from_numpy(np.stack([m for _, m in maps]).astype(np.float32))[:, None]
    mask[1], mask[2] = 0, 1
    found = batch_metrics(prob.to(device), mask.to(device))
    assert all(v.device.type == device.type and v.dtype == torch.float32 for v in found.values())
    expected = pixel_metrics(prob[0, 0], mask[0, 0])
    tolerance = 1e-6 if dtype == torch.float32 else 2e-4  # bfloat16 is rounded once more
    for name, values in found.items():
        assert float(values[0]) == pytest.approx(expected[name], abs=tolerance)
        assert math.isnan(values[1])
    assert math.isnan(found["auc"][2])
    assert float(found["f1"][2]) == pytest.approx(pixel_metrics(prob[2, 0], mask[2, 0])["f1"])


def test_arrays_of_confusions():
    found = Confusion(np.array([3, 0]), np.array([1, 0]), np.array([0, 0]), np.array([4, 8]))
    np.testing.assert_allclose(found.f1(), [6 / 7, 0])
    np.testing.assert_allclose(found.f1_macro(), [(6 / 7 + 8 / 9) / 2, 1])


GOOD = np.full((4, 5), 0.5), np.eye(4, 5)


@pytest.mark.parametrize(
    ("probability", "mask", "options", "message"),
    [
        (GOOD[0], np.eye(5), {}, r"must be \(H, W\), got \(4, 5\) and \(5, 5\)"),
        (GOOD[0][None], GOOD[1][None], {}, r"got \(1, 4, 5\)"),
        (np.zeros((0, 5)), np.zeros((0, 5)), {}, r"got \(0, 5\)"),
        (GOOD[0] + 1, GOOD[1], {}, r"float in \[0, 1\], got float64 from 1.5 to 1.5"),
        (GOOD[0] * np.nan, GOOD[1], {}, "from nan to nan"),
        (GOOD[0].astype(int), GOOD[1], {}, "got int64"),
        (GOOD[0], 255 * GOOD[1], {}, "mask must hold 0 and 1 only, got 255; binarise it first"),
        (*GOOD, {"threshold": 1.0}, r"threshold must be in \(0, 1\), got 1.0"),
        (*GOOD, {"protocol": "best"}, "one of official, imdl, trufor, got 'best'"),
        (*GOOD, {"valid": np.ones(5)}, r"valid must be \(4, 5\) as the mask is, got \(5,\)"),
        (*GOOD, {"valid": np.zeros((4, 5))}, "no pixel counts"),
    ],
)
def test_what_is_refused(probability, mask, options, message):
    with pytest.raises(ValueError, match=message):
        pixel_metrics(probability, mask, **options)


def test_what_else_is_refused():
    with pytest.raises(ValueError, match=r"truth must be \(2,\) as scores are, got \(3,\)"):
        binary_auc([0.1, 0.2], [0, 1, 1])
    with pytest.raises(ValueError, match="finite"):
        binary_auc([0.1, math.inf], [0, 1])
    with pytest.raises(ValueError, match="width must be >= 1"):
        boundary_f1(*GOOD, width=0)
    with pytest.raises(ValueError, match=r"must be \(N, 1, H, W\)"):
        batch_metrics(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="levels"):
        batch_metrics(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), levels=1)
