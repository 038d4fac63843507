"""The pipeline over a tiny folder: modes, masks, and the images it gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from multi_edits import (
    AspectGroup,
    Edit,
    GroupingSettings,
    SamplingSettings,
    derive_edits,
)
from papercommons.errors import DataError

SOURCE = "a red circle left of a blue square on a black background"
TARGET = "a green circle left of a blue dog on a white background"
GROUPS = [
    AspectGroup("rigid", (0,)),
    AspectGroup("non-rigid", (1,)),
    AspectGroup("global", (2,)),
]
QUICK = {
    "source_prompt": SOURCE,
    "target_prompt": TARGET,
    "mode": "parallel",
    "steps": 3,
    "groups": GROUPS,
}


def pixels(image):
    return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def edited(pipe, image):
    return pipe(image, **QUICK)


def test_one_branch_for_each_group_with_gathered_prompts(edited):
    assert edited.prompts == (
        SOURCE,
        "a green circle left of a blue square on a black background",
        "a green circle left of a blue dog on a black background",
        TARGET,
    )
    assert [str(edit) for edit in edited.edits] == [
        "red -> green",
        "square -> dog",
        "black -> white",
    ]
    assert edited.rows == 3 * 2 * (1 + 3)
    assert edited.image.size == (32, 32)
    assert len(edited.branches) == 3
    assert (pixels(edited.branches[-1]) == pixels(edited.image)).all()
    assert edited.masks.shape == (3, 16, 16)
    assert edited.masks[2].all()  # a global edit has no region


def test_the_same_seed_gives_the_same_image(pipe, image, edited):
    assert (pixels(pipe(image, **QUICK).image) == pixels(edited.image)).all()
    assert (pixels(pipe(image, **QUICK, seed=1).image) != pixels(edited.image)).any()


def test_groups_are_found_by_a_short_pass(pipe, image):
    done = pipe(image, **{**QUICK, "groups": None}, grouping=GroupingSettings(steps=2))
    assert sorted(edit for group in done.groups for edit in group.edits) == [0, 1, 2]
    assert len(done.aspects) == 3
    assert done.rows == 2 * 2 * 2 + 3 * 2 * (1 + len(done.groups))
    source, target = done.aspects[1].source, done.aspects[1].target
    assert source.shape == target.shape == (256, 256)
    found, aspects = pipe.find_groups(
        image, source_prompt=SOURCE, edits=done.edits, grouping=GroupingSettings(steps=2)
    )
    assert found == list(done.groups)
    assert torch.equal(aspects[1].target, target)
    again = pipe(image, **{**QUICK, "groups": done.groups})
    assert (pixels(again.image) == pixels(done.image)).all()


def test_a_single_branch_has_all_edits(pipe, image):
    done = pipe(image, **{**QUICK, "mode": "single"})
    assert done.prompts == (SOURCE, TARGET)
    assert [(group.kind, group.edits) for group in done.groups] == [("non-rigid", (0, 1, 2))]
    assert done.rows == 3 * 2 * 2


def test_in_sequence_each_run_starts_from_the_8_bit_image_before(pipe, image, edited):
    done = pipe(image, **{**QUICK, "mode": "sequential"})
    assert done.prompts == edited.prompts
    assert done.rows == 3 * 3 * 2 * 2
    edits = derive_edits(done.prompts[1], done.prompts[2])
    by_hand = pipe(
        done.branches[0],
        source_prompt=done.prompts[1],
        edits=edits,
        mode="parallel",
        steps=3,
        groups=[AspectGroup("non-rigid", (0,))],
        seed=1,
    )
    assert (pixels(by_hand.image) == pixels(done.branches[1])).all()


def test_one_edit_is_alike_in_all_modes(pipe, image):
    options = {"source_prompt": SOURCE, "edits": [Edit("red", "green", 1)], "steps": 3}
    done = [
        pipe(image, **options, groups=[AspectGroup("rigid", (0,))], mode=mode)
        for mode in ("parallel", "single", "sequential")
    ]
    for other in done[1:]:
        assert (pixels(other.image) == pixels(done[0].image)).all()


def test_a_strength_of_0_leaves_an_edit_out(pipe, image):
    edits = derive_edits(SOURCE, TARGET)
    options = {"source_prompt": SOURCE, "steps": 3}
    without = pipe(image, **options, edits=[edits[0]], groups=[AspectGroup("rigid", (0,))])
    weak = [edits[0], replace(edits[1], strength=0.0)]
    done = pipe(image, **options, edits=weak, groups=[AspectGroup("rigid", (0,))])
    assert (pixels(done.image) == pixels(without.image)).all()
    found, _ = pipe.find_groups(image, source_prompt=SOURCE, edits=weak)
    assert [group.edits for group in found] == [(0,)]


def test_without_edits_the_image_comes_back(pipe, image):
    done = pipe(image, source_prompt=SOURCE, target_prompt=f"[{SOURCE}]")
    assert (pixels(done.image) == image).all()
    assert done.groups == ()
    assert done.rows == 0


def test_a_users_mask_is_the_region_of_its_branch(pipe, image):
    mask = np.zeros((32, 32), dtype=bool)
    mask[:, :12] = True
    edits = [Edit("red", "green", 1)]
    options = {"source_prompt": SOURCE, "edits": edits, "steps": 3}
    done = pipe(image, **options, groups=[AspectGroup("rigid", (0,))], masks={0: mask})
    assert torch.equal(done.masks[0], torch.from_numpy(mask[::2, ::2]))
    free = pipe(image, **options, groups=[AspectGroup("global", (0,))])
    assert (pixels(done.image) != pixels(free.image)).any()
    held = pipe(image, **options, groups=[AspectGroup("global", (0,))], masks={0: mask})
    assert torch.equal(held.masks, done.masks)
    source, there = held.latents[0], torch.from_numpy(mask[::2, ::2])
    torch.testing.assert_close(held.latents[1][:, ~there], source[:, ~there])


def test_latents_come_out_and_go_in(pipe, image, edited):
    assert edited.latents.shape == (1 + 3, 4, 16, 16)
    again = pipe(image * 0, **QUICK, latents=edited.latents[:1])
    assert (pixels(again.image) == pixels(edited.image)).all()
    with pytest.raises(DataError, match=r"latents must be \[1, 4, 16, 16\], got \[4, 4, 16, 16\]"):
        pipe(image, **QUICK, latents=edited.latents)
    plain = pipe(image, source_prompt=SOURCE, target_prompt=SOURCE)
    assert torch.equal(plain.latents, edited.latents[:1])


def test_reference_form_and_layout_streams_take_more_rows(pipe, image):
    rows = 3 * 2 * (1 + 2 * 3)
    for settings in (SamplingSettings(compat="reference"), SamplingSettings(layout=True)):
        assert pipe(image, **QUICK, settings=settings).rows == rows
    half = SamplingSettings(guidance=1.0)
    assert pipe(image, **QUICK, settings=half).rows == 3 * (1 + 3)


def test_maps_can_be_kept_at_another_level(pipe, image, edited):
    fine = pipe(image, **QUICK, settings=SamplingSettings(map_level=0, edit_threshold=0.9))
    coarse = pipe(image, **QUICK, settings=SamplingSettings(map_level=1, edit_threshold=0.9))
    blocks = coarse.masks.float().unfold(1, 2, 2).unfold(2, 2, 2).flatten(-2)
    assert torch.equal(blocks.amin(-1), blocks.amax(-1))
    assert fine.masks.shape == coarse.masks.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edits": []}, "either target_prompt or edits"),
        ({"target_prompt": None}, "either target_prompt or edits"),
        ({"mode": "all"}, "mode must be one of per-word, parallel, single, sequential"),
        ({"steps": 1}, "steps must be at least 2, got 1"),
        ({"steps": 1001}, r"1\.\.1000, got 1001"),
        ({"groups": GROUPS[:2]}, r"hold the edits \[0, 1, 2\] once each, got \[0, 1\]"),
        ({"masks": {3: np.ones((32, 32))}}, "a mask is given for edit 3, and there are 3"),
        ({"masks": {0: np.ones((16, 16))}}, r"the shape \(16, 16\), the image \(32, 32\)"),
        ({"masks": {0: np.zeros((32, 32))}}, "mark something"),
        (
            {"source_prompt": "red " * 30, "target_prompt": "red " * 29, "groups": None},
            "8 would be",
        ),
        ({"settings": SamplingSettings(map_level=2)}, r"map_level must be one of \[0, 1\]"),
    ],
)
def test_wrong_options_are_named(pipe, image, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(image, **{**QUICK, **options})


def test_wrong_images_are_named(pipe, image, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        pipe(tmp_path / "none.png", **QUICK)
    with pytest.raises(DataError, match="uint8"):
        pipe(image / 255, **QUICK)
    with pytest.raises(DataError, match=r"31 x 32 .* multiples of 2; resize it, .* 32 x 32"):
        pipe(image[:, :31], **QUICK)
    assert pipe(image[:, :31], **QUICK, resize=True).image.size == (32, 32)


def test_sides_need_not_be_equal(pipe, image):
    assert pipe(image[:20], **QUICK).image.size == (32, 20)
