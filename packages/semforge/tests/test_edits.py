from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from semforge.edits import KINDS, bend, edit_face, kinds_of, match_colours
from semforge.fingerprints import FAMILIES, camera, fingerprint
from semforge.graph import LabelGraph
from semforge.regions import REGIONS, region_mask, union

FFSC, FFPP = LabelGraph.ffsc(), LabelGraph.ffpp()


def picture(seed, size=48):
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(30, 220, (1, 3, 9, 9)))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return fine[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()


ONE, OTHER = picture(0), picture(1)


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(KINDS),
    family=st.sampled_from(FAMILIES),
    graph=st.sampled_from([FFSC, FFPP]),
)
def test_labels_are_legal_and_only_their_regions_change(seed, kind, family, graph):
    if kind not in kinds_of(graph):
        return
    image, label = edit_face(
        ONE, np.random.default_rng(seed), graph, kind=kind, family=family, other=OTHER
    )
    on = {node for node, value in zip(graph.nodes, label, strict=True) if value}
    assert on >= {"fake", kind}
    regions = on - {"fake", kind}
    assert regions
    assert regions <= set(graph.any_child[kind])
    assert graph.is_legal(torch.from_numpy(label)[None]).all()
    assert label.dtype == np.int8
    assert image.dtype == np.uint8
    changed = (image != ONE).any(2)
    assert changed.any()
    assert not changed[union(regions, 48) == 0].any()


def test_all_choices_of_regions_are_as_likely():
    rng = np.random.default_rng(0)
    seen = [
        tuple(edit_face(ONE, rng, FFSC, kind="age", family="levels")[1].tolist())
        for _ in range(150)
    ]
    counts = [seen.count(each) for each in set(seen)]
    assert len(counts) == 3  # eye, skin, both
    assert min(counts) > 30


def test_identity_takes_what_the_other_face_shows():
    rng = np.random.default_rng(3)
    image, label = edit_face(ONE, rng, FFSC, kind="identity", family="median", other=OTHER)
    regions = [node for node, value in zip(FFSC.nodes[6:], label[6:], strict=True) if value]
    inside = union(regions, 48) > 0.95
    matched = match_colours(OTHER, ONE, union(regions, 48)).astype(int)

    def close(a, b):
        return np.abs(a.astype(int) - b)[inside].mean()

    assert close(image, matched) < 0.3 * close(ONE, matched)


def test_colours_are_matched_within_the_mask():
    mask = union(["nose", "skin"], 48)
    matched = match_colours(OTHER, ONE, mask).astype(float)
    weights = mask[..., None] / mask.sum()
    np.testing.assert_allclose((matched * weights).sum((0, 1)), (ONE * weights).sum((0, 1)), atol=3)


def test_bending_moves_by_no_more_than_it_says():
    ramp = np.repeat(np.arange(48, dtype=np.uint8)[None, :, None] * 5, 48, 0).repeat(3, 2)
    mask = np.ones((48, 48), np.float32)
    for seed in range(10):
        moved = np.abs(bend(ramp, mask, np.random.default_rng(seed)).astype(float) - ramp) / 5
        assert 0.02 * 48 * 0.5 < moved.max() <= 0.045 * 48 + 0.2
    mask[:, :24] = 0
    moved = bend(ONE, mask, np.random.default_rng(0)) != ONE
    assert moved[:, 24:].any()
    assert not moved[:, :24].any()


def test_regions_lie_where_a_face_has_them():
    masks = {region: region_mask(region, 64) for region in REGIONS}
    rows = {k: (m.sum(1) @ np.arange(64)) / m.sum() for k, m in masks.items()}
    assert rows["eyebrow"] < rows["eye"] < rows["nose"] < rows["mouth"]
    for region, mask in masks.items():
        np.testing.assert_allclose(mask, mask[:, ::-1], atol=1e-6)
        assert mask.max() > 0.9, region
        assert mask[[0, -1]].max() == mask[:, [0, -1]].max() == 0
    assert (masks["lip"] * masks["mouth"]).max() < 0.3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_leaves_its_trace(family):
    traced = fingerprint(ONE, family, np.random.default_rng(0)).astype(int)
    assert traced.shape == ONE.shape
    change = traced - ONE
    assert np.abs(change).mean() > 0.2
    if family == "nearest":
        assert np.array_equal(traced[::2], traced[1::2])
    if family == "checker":
        assert (change[:-1].mean(2) * change[1:].mean(2) <= 0).mean() > 0.95
    if family == "levels":
        assert all(len(np.unique(traced[..., c])) <= 21 for c in range(3))
    if family == "colour":
        assert (np.abs(change.mean((0, 1))) > 8).all()


def test_the_camera_keeps_the_picture_recognisable():
    taken = [camera(ONE, np.random.default_rng(seed)).astype(int) for seed in range(8)]
    assert all(0.5 < np.abs(image - ONE).mean() < 30 for image in taken)
    assert np.array_equal(taken[0], camera(ONE, np.random.default_rng(0)))


def test_faults():
    rng = np.random.default_rng(0)
    with pytest.raises(
        ValueError, match=r"ffpp has no attribute 'age'.*it has expression, identity"
    ):
        edit_face(ONE, rng, FFPP, kind="age", family="half")
    with pytest.raises(ValueError, match="needs the face of another"):
        edit_face(ONE, rng, FFSC, kind="identity", family="half")
    with pytest.raises(ValueError, match="family must be one of"):
        edit_face(ONE, rng, FFSC, kind="age", family="gan")
    for wrong in (ONE[:40], ONE.astype(float), picture(0, 24)):
        with pytest.raises(ValueError, match=r"uint8 \(S, S, 3\)"):
            edit_face(wrong, rng, FFSC, kind="age", family="half")
