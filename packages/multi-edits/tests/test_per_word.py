"""One branch with a control, a region and a strength of its own for each edit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from multi_edits import Aspect, AspectGroup, GroupingSettings, SamplingSettings, derive_edits
from multi_edits.edits import locate_edits
from multi_edits.per_word import edit_regions, plan_per_word
from papercommons.errors import DataError

SOURCE = "a red circle left of a blue square on a black background"
TARGET = "a green circle left of a blue dog on a white background"
EDITS = locate_edits(SOURCE, derive_edits(SOURCE, TARGET))
KINDS = [
    AspectGroup("rigid", (0,)),
    AspectGroup("non-rigid", (1,)),
    AspectGroup("global", (2,)),
]
HERE = {k: torch.zeros(4, 4, dtype=torch.bool) for k in range(3)}
for k, region in HERE.items():
    region[k : k + 2] = True


def plan(tokenizer, groups, edits=EDITS, regions=HERE):
    def encode(prompts):
        return torch.zeros(len(prompts), tokenizer.model_max_length, 8)

    made = plan_per_word(SOURCE, edits, groups, regions, tokenizer=tokenizer, encode=encode)
    (branch,) = made.branches
    return made.prompts, branch


def pixels(image):
    return np.asarray(image).astype(int)


def test_a_region_is_where_the_phrase_of_the_edit_is_seen():
    old, new = torch.zeros(2, 256, 256)
    old[:64, :64] = 200.0
    old[64:, 64:] = 90.0  # below half of the peak
    new[192:, 192:] = 7.0  # each map is scaled by itself
    aspects = [
        Aspect((0, 2), old, new),
        Aspect((1,), None, new),
        Aspect((3,), None, None, whole_image=True),
    ]
    regions = edit_regions(aspects, 0.5, (4, 8))
    expected = torch.zeros(4, 8, dtype=torch.bool)
    expected[3, 6:] = True
    assert torch.equal(regions[1], expected)
    expected[0, :2] = True
    assert torch.equal(regions[0], expected)
    assert torch.equal(regions[2], expected)
    assert regions[3].all()
    wider = edit_regions(aspects, 0.4, (4, 8))
    assert wider[0].sum() > regions[0].sum()


def test_only_words_of_rigid_edits_attend_where_the_old_ones_did(tokenizer):
    prompts, branch = plan(tokenizer, KINDS)
    assert prompts == (SOURCE, TARGET)
    before = tokenizer(SOURCE).input_ids
    after = tokenizer(TARGET).input_ids
    own = branch.mix.own.bool()
    new = {word: tokenizer(word).input_ids[1:-1] for word in ("green", "dog", "white")}
    assert len(new["dog"]) == 3
    places = {word: after.index(tokens[0]) for word, tokens in new.items()}
    red = before.index(tokenizer("red").input_ids[1])
    assert branch.mix.matrix[red, places["green"]] == 1
    assert not own[places["green"]]
    assert own[places["dog"] : places["dog"] + 3].all()
    assert own[places["white"]]
    _, other = plan(tokenizer, [AspectGroup("non-rigid", (0, 1)), AspectGroup("rigid", (2,))])
    black = before.index(tokenizer("black").input_ids[1])
    assert other.mix.own.bool()[places["green"]]
    assert other.mix.matrix[black, places["white"]] == 1
    marked = branch.edit_tokens.nonzero().flatten().tolist()
    assert marked == sorted(after.index(t) for tokens in new.values() for t in tokens)


def test_edits_that_are_all_global_have_no_control_but_their_regions(tokenizer):
    _, branch = plan(tokenizer, [AspectGroup("global", (0, 1, 2))])
    assert branch.mix is None
    assert branch.sharing is None
    assert torch.equal(branch.mask, HERE[0] | HERE[1] | HERE[2])


def test_strength_is_that_of_the_edits_of_a_place(tokenizer):
    _, branch = plan(tokenizer, KINDS)
    assert branch.strength == 1.0
    edits = [replace(edit, strength=s) for edit, s in zip(EDITS, (1.0, 0.5, 2.0), strict=True)]
    groups = [replace(g, strength=edits[k].strength) for k, g in enumerate(KINDS)]
    _, branch = plan(tokenizer, groups, edits)
    torch.testing.assert_close(branch.strength[:, 0], torch.tensor([1.0, 0.75, 1.25, 2.0]))
    sparse = {**HERE, 1: HERE[0]}
    _, branch = plan(tokenizer, groups, edits, sparse)
    torch.testing.assert_close(branch.strength[:, 0], torch.tensor([0.75, 0.75, 2.0, 2.0]))


def test_an_edit_of_strength_0_is_left_out(tokenizer):
    edits = [EDITS[0], replace(EDITS[1], strength=0.0), EDITS[2]]
    prompts, branch = plan(tokenizer, [KINDS[0], KINDS[2]], edits)
    assert prompts[1] == "a green circle left of a blue square on a white background"
    assert torch.equal(branch.mask, HERE[0] | HERE[2])


def test_it_is_what_the_pipeline_does_unless_told_otherwise(pipe, image):
    options = {"source_prompt": SOURCE, "edits": EDITS, "steps": 3}
    grouping = GroupingSettings(steps=2)
    done = pipe(image, **options, grouping=grouping)
    assert len(done.branches) == 1
    assert done.masks.shape == (1, 16, 16)
    assert done.rows == 2 * 2 * 2 + 3 * 2 * 2
    regions = edit_regions(done.aspects, 0.5, (16, 16))
    assert torch.equal(done.masks[0], regions[0] | regions[1] | regions[2])
    source, made = done.latents[0], done.latents[1]
    torch.testing.assert_close(made[:, ~done.masks[0]], source[:, ~done.masks[0]])
    assert (made != source).any()
    given = pipe(image, **options, groups=done.groups, aspects=done.aspects)
    assert given.rows == 3 * 2 * 2
    assert (pixels(given.image) == pixels(done.image)).all()
    sampled = pipe(image, **options, groups=done.groups, grouping=grouping)
    assert sampled.rows == done.rows
    assert (pixels(sampled.image) == pixels(done.image)).all()


def test_a_mask_of_one_edit_alone_counts(pipe, image):
    mask = np.zeros((32, 32), dtype=bool)
    mask[:, :12] = True
    options = {"source_prompt": SOURCE, "edits": EDITS, "steps": 3}
    free = pipe(image, **options, groups=KINDS)
    done = pipe(image, **options, groups=KINDS, aspects=free.aspects, masks={1: mask})
    regions = edit_regions(free.aspects, 0.5, (16, 16))
    by_hand = regions[0] | regions[2] | torch.from_numpy(mask[::2, ::2])
    assert torch.equal(done.masks[0], by_hand)


def test_a_strength_for_each_place_equals_a_number_where_it_is_one(pipe, image):
    options = {"source_prompt": SOURCE, "steps": 3, "groups": KINDS}
    aspects = pipe(image, **options, edits=EDITS).aspects
    left, right = np.zeros((2, 32, 32), dtype=bool)
    left[:, :16], right[:, 16:] = True, True
    masks = {0: left, 1: left, 2: right}

    def made(*strengths):
        edits = [replace(e, strength=s) for e, s in zip(EDITS, strengths, strict=True)]
        return pipe(image, **options, edits=edits, aspects=aspects, masks=masks).latents[1]

    torch.testing.assert_close(made(0.5, 0.5, 0.5 + 1e-6), made(0.5, 0.5, 0.5), atol=1e-4, rtol=0)
    changed = made(0.5, 0.5, 2.0) - made(0.5, 0.5, 0.5)
    assert changed[..., 8:].abs().max() > 5 * changed[..., :1].abs().max()


def test_what_does_not_fit_is_named(pipe, image):
    options = {"source_prompt": SOURCE, "edits": EDITS, "steps": 3}
    with pytest.raises(ValueError, match="compat reference is of several branches"):
        pipe(image, **options, settings=SamplingSettings(compat="reference"))
    with pytest.raises(ValueError, match=r"aspects must hold the edits \[0, 1, 2\] once each"):
        pipe(image, **options, groups=KINDS, aspects=())
    with pytest.raises(DataError, match="a mask is given for edit 3"):
        pipe(image, **options, masks={3: np.ones((32, 32))})
