"""The synthetic benchmark: what it says is true is true."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from d_tiil.layouts import open_pairs
from d_tiil.scene_pairs import KINDS, PARTS, ScenePairOptions, draw_changes, draw_scene_pairs
from d_tiil.synthesizing import make_scene_pairs
from papercommons.data.scene_reading import read_scene
from papercommons.data.scenes import CROWDED, SIMPLE
from papercommons.errors import DataError

SMALL = ScenePairOptions(count=4, calibration=2)
CROWD = ScenePairOptions(count=3, calibration=0, scenes="crowded", size=64)


@pytest.fixture(scope="module", params=[SMALL, CROWD, replace(CROWD, held_out=True)])
def drawn(request):
    options = request.param
    return options, list(draw_changes(options, 0)), draw_scene_pairs(options, 0)


def test_pictures_and_captions_say_what_the_label_says(drawn):
    _, changes, records = drawn
    by_name = {record.name: record for record in records}
    assert len(by_name) == len(changes) * 4
    for change in changes:
        before, after = change.before.caption(), change.after.caption()
        for part in PARTS:
            record = by_name[f"{change.name}-{part}"]
            seen = change.before.caption(read_scene(record.image, change.before))
            assert seen == record.true_caption
            assert (seen == record.caption) == (record.label == "consistent")
            assert record.caption == (after if part == "caption" else before)
            assert record.source == change.name
            assert record.true_mask(record.image.shape[:2]) is not None
            if record.label == "consistent":
                assert (record.mask, record.words) == (None, ())


def test_masks_and_words_are_exact(drawn):
    options, changes, records = drawn
    by_name = {record.name: record for record in records}
    for change in changes:
        for part in ("caption", "image"):
            record = by_name[f"{change.name}-{part}"]
            size = record.image.shape[:2]
            mask, changed = record.true_mask(size), record.changed.read(size)
            words = [word.text for word in record.true_words()]
            both = [scene.render(options.size) for scene in (change.before, change.after)]
            assert (changed == (both[0] != both[1]).any(-1)).all()
            assert mask.any()
            assert changed.any()
            if change.kind in ("color", "texture", "shape", "background"):
                assert len(words) == 1
            if change.kind in ("color", "background"):
                assert (mask == changed).all()
            if change.kind == "texture":
                assert not (changed & ~mask).any()
            if change.kind == "shape":
                assert (changed & mask).any()
                assert not (changed == mask).all()  # the difference, not the thing
            if change.kind == "relation":
                assert words == ["left of"]
            if change.kind == "whole":
                assert mask.all()
                things = sum(thing.present for thing in change.before.things)
                assert len(words) == things * (2 if options.scenes == "simple" else 3) + 1
            for word in record.words:
                assert record.caption[word.start : word.end] == word.text
    kinds = {record.kind.removeprefix("held-out ") for record in records}
    assert kinds == set(KINDS) - ({"texture"} if options.scenes == "simple" else {"relation"})


def test_controls_show_the_same_thing_with_noise(drawn):
    options, changes, records = drawn
    by_name = {record.name: record for record in records}
    for change in changes:
        clean, noisy = (by_name[f"{change.name}-{part}"] for part in ("consistent", "control"))
        differs = (clean.image != noisy.image).any(-1)
        region = noisy.changed.read(differs.shape)
        assert not (differs & ~region).any()
        assert differs[region].mean() > 0.8
        assert np.abs(clean.image.astype(int) - noisy.image).max() < 6 * options.noise
        assert (clean.edited, noisy.edited) == ("none", "image")
        assert (clean.label, noisy.label) == ("consistent", "consistent")


def test_relations_swap_things_that_differ_in_all():
    for change in draw_changes(replace(SMALL, kinds=("relation",)), 3):
        left, right = change.before.things
        other = change.after.things
        assert (left.color, left.shape) == (other[1].color, other[1].shape)
        assert (right.color, right.shape) == (other[0].color, other[0].shape)
        assert left.color != right.color
        assert left.shape != right.shape


def test_wholly_wrong_captions_share_no_fact():
    for options in (SMALL, CROWD):
        for change in draw_changes(replace(options, kinds=("whole",)), 1):
            mine, other = (
                {(thing.color, thing.shape) for thing in scene.things if thing.present}
                for scene in (change.before, change.after)
            )
            for which in (0, 1):
                assert not {pair[which] for pair in mine} & {pair[which] for pair in other}
            assert change.before.background != change.after.background


def test_captions_that_training_does_not_see():
    def pairs_of(caption):
        words = caption.split()
        held = {" ".join(pair) for pair in CROWDED.held_out}
        return held & {" ".join(two) for two in pairwise(words)}

    for record in draw_scene_pairs(replace(CROWD, held_out=True)):
        assert pairs_of(record.caption)
        assert record.kind.startswith("held-out ")
    assert not any(pairs_of(record.caption) for record in draw_scene_pairs(CROWD))


def test_the_same_seed_gives_the_same_pairs_and_more_only_adds():
    few, many = (draw_scene_pairs(replace(SMALL, count=n)) for n in (2, 4))
    digests = {record.digest() for record in many}
    assert {record.digest() for record in few} < digests
    assert not digests & {record.digest() for record in draw_scene_pairs(SMALL, seed=1)}
    assert {record.split for record in few} == {"test", "val"}
    pictures = {record.image.tobytes() for record in many if record.split == "val"}
    assert not pictures & {record.image.tobytes() for record in many if record.split == "test"}


def test_a_set_on_disk_is_the_one_in_memory(tmp_path):
    out = tmp_path / "pairs"
    few = replace(SMALL, count=1, calibration=1)
    result = make_scene_pairs(str(out), few, seed=5)
    pairs = open_pairs(out, check="full", strict=True)
    drawn = draw_scene_pairs(few, 5)
    assert len(pairs) == len(drawn) == result.metrics["pairs"] == 2 * 4 * 5
    for there, here in zip(pairs, drawn, strict=True):
        size = here.image.shape[:2]
        assert (np.asarray(there.open_image()) == here.image).all()
        for name in ("name", "caption", "label", "words", "kind", "edited", "split", "source"):
            assert getattr(there, name) == getattr(here, name)
        assert there.true_caption == here.true_caption
        assert (there.true_mask(size) == here.true_mask(size)).all()
        assert (there.changed is None) == (here.changed is None)
        if here.changed is not None:
            assert (there.changed.read(size) == here.changed.read(size)).all()
    assert json.loads((out / "result.json").read_text())["data_hash"] == result.data_hash
    assert "Examples" in (out / "report.html").read_text()
    with pytest.raises(DataError, match="--overwrite"):
        make_scene_pairs(str(out), few)
    one = replace(few, calibration=0, parts=("caption",), kinds=("shape",))
    make_scene_pairs(str(out), one, overwrite=True)
    assert len(open_pairs(out, strict=True)) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"count": -1}, "count must be >= 0"),
        ({"count": 0, "calibration": 0}, "count must be > 0"),
        ({"size": 8}, "size"),
        ({"noise": 0.0}, "noise"),
        ({"kinds": ("colour",)}, "did you mean color"),
        ({"kinds": ("color", "color")}, "each once"),
        ({"parts": ()}, "each once"),
        ({"kinds": ("texture",)}, "crowded"),
        ({"kinds": ("relation",), "scenes": "crowded"}, "simple"),
        ({"held_out": True}, "crowded"),
        ({"scenes": "big"}, "simple or crowded"),
    ],
)
def test_bad_options(change, why):
    with pytest.raises(ValueError, match=why):
        replace(SMALL, **change)


def test_presets_are_those_that_the_aims_refer_to():
    assert (SIMPLE.relation, CROWDED.relation) == ("left of", "")
    assert ScenePairOptions().count == 100
