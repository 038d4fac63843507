"""Kinds and groups of aspects: reference values, guards, order."""

from __future__ import annotations

import json

import pytest
import torch
from multi_edits import Aspect, AspectGroup, group_aspects
from multi_edits.grouping import (
    aspect_kind,
    cluster_maps,
    covered_area,
    one_group,
    overlap_coefficient,
    to_gray_levels,
)


def check(case, maps):
    """Assert that a case of the reference comes out the same."""
    index, kinds = case["case"], {}
    for pair in case["pairs"]:
        source = maps[f"{index}_src_{pair[0]}"] if len(pair) == 2 else None
        target = maps[f"{index}_tgt_{pair[-1]}"]
        kinds[pair[-1]] = aspect_kind(Aspect((0,), source, target))
        assert covered_area(target) == pytest.approx(case["target_fraction_above_100"][pair[-1]])
        if source is not None:
            expected = case["overlap_coefficient_mean"]["->".join(pair)]
            assert overlap_coefficient(source, target) == pytest.approx(expected, abs=1e-9)
    for kind, key in (("rigid", "rigid"), ("non-rigid", "non_rigid"), ("global", "global_edits")):
        assert [name for name, own in kinds.items() if own == kind] == case[key]
    local = [*case["rigid"], *case["non_rigid"]]
    clusters = cluster_maps([maps[f"{index}_tgt_{name}"] for name in local], 0)
    expected = [sorted(names) for names in case["clusters_of_rigid_plus_nonrigid"]]
    assert sorted(sorted(local[k] for k in own) for own in clusters) == sorted(expected)


def test_kinds_and_clusters_as_in_the_reference(data, parity):
    for case in json.loads((data / "aspects.json").read_text()):
        check(case, parity("aspects"))


def test_every_case_of_the_reference(shared_files):
    import numpy as np

    folder = shared_files / "parity/multi-edits"
    with np.load(folder / "aspect_grouping.npz") as file:
        maps = {name: torch.from_numpy(file[name]) for name in file.files}
    for case in json.loads((folder / "aspect_grouping_cases.json").read_text()):
        check(case, maps)


def box(x0, x1, y0=0, y1=16):
    levels = torch.zeros(16, 16)
    levels[y0:y1, x0:x1] = 255.0
    return levels


LEFT, RIGHT, ALL, EMPTY = box(0, 6), box(10, 16), box(0, 16), box(0, 0)


def test_overlap_is_relative_to_the_smaller_area():
    assert overlap_coefficient(LEFT, ALL) == 1.0
    assert overlap_coefficient(LEFT, box(3, 9)) == pytest.approx(0.5)
    assert overlap_coefficient(LEFT, RIGHT) == 0.0
    assert overlap_coefficient(LEFT, EMPTY) == 0.0


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        (LEFT, LEFT, "rigid"),
        (LEFT, RIGHT, "non-rigid"),
        (None, LEFT, "non-rigid"),
        (LEFT, None, "non-rigid"),
        (EMPTY, EMPTY, "non-rigid"),
        (ALL, ALL, "global"),
        (None, ALL, "global"),
    ],
)
def test_kinds(source, target, kind):
    assert aspect_kind(Aspect((0,), source, target)) == kind


def test_an_edit_of_no_object_is_global_wherever_it_is_seen():
    assert aspect_kind(Aspect((0,), LEFT, LEFT, whole_image=True)) == "global"
    with pytest.raises(ValueError, match="needs a map"):
        Aspect((0,), None, None)


def aspects():
    return [
        Aspect((0,), ALL, ALL),
        Aspect((1,), None, RIGHT),
        Aspect((2, 4), LEFT, LEFT),
        Aspect((3,), LEFT, box(0, 7)),
        Aspect((5,), None, LEFT, whole_image=True),
    ]


def test_groups_share_kind_and_place_and_global_ones_come_last():
    groups = group_aspects(aspects())
    assert [(g.kind, g.edits) for g in groups] == [
        ("rigid", (2, 3, 4)),
        ("non-rigid", (1,)),
        ("global", (0, 5)),
    ]
    assert groups[0].overlap == 1.0
    assert groups[1].overlap is None
    assert groups[2].area == 1.0
    other = group_aspects(aspects(), order="non-rigid-first")
    assert [g.kind for g in other] == ["non-rigid", "rigid", "global"]


def test_any_overlap_groups_at_threshold_0():
    maps = [LEFT, box(5, 12), RIGHT]
    assert cluster_maps(maps, 0) == [[0, 1], [2]]
    assert cluster_maps(maps, 0.9) == [[0], [1], [2]]


def test_other_strengths_are_kept_apart():
    first, second = Aspect((0,), LEFT, LEFT), Aspect((1,), LEFT, LEFT, strength=0.5)
    groups = group_aspects([first, second])
    assert [(g.edits, g.strength) for g in groups] == [((0,), 1.0), ((1,), 0.5)]


def test_one_group_holds_everything():
    groups = group_aspects(aspects())
    whole = one_group(groups)
    assert whole.kind == "non-rigid"
    assert whole.edits == (0, 1, 2, 3, 4, 5)
    assert one_group([AspectGroup("global", (1,)), AspectGroup("global", (0,))]).kind == "global"
    assert one_group([AspectGroup("rigid", (0,)), AspectGroup("global", (1,))]).kind == "rigid"


def test_maps_become_gray_levels_by_their_own_maximum():
    maps = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0))
    levels = to_gray_levels(torch.cat([maps, 7 * maps, 0 * maps]), side=32)
    assert levels.shape == (6, 32, 32)
    torch.testing.assert_close(levels[:2], levels[2:4])
    assert float(levels[4:].max()) == 0.0
    assert 200 < float(levels.max()) <= 255


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="must be in"):
        group_aspects(aspects(), theta=1.5)
    with pytest.raises(ValueError, match="order must be"):
        group_aspects(aspects(), order="global-first")  # type: ignore[arg-type]
