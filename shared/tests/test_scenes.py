from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papercommons.data.scene_parts import shape_mask, texture_pattern
from papercommons.data.scenes import (
    BACKGROUND,
    CROWDED,
    KINDS,
    SIMPLE,
    Fact,
    Scene,
    Thing,
    changed_pixels,
    draw_caption,
    draw_edits,
    draw_scene,
    find_preset,
    has_held_out,
    longest_caption,
    words,
)

presets = st.sampled_from([SIMPLE, CROWDED])
seeds = st.integers(0, 2**32 - 1)


def crowded_scene():
    things = (
        Thing("top left", "circle", "red", "striped", 8, 8, 6),
        Thing("top right", "cross", "cyan", "plain", 24, 8, 6, present=False),
        Thing("bottom left", "square", "blue", "plain", 8, 24, 6),
        Thing("bottom right", "triangle", "green", "checked", 24, 24, 6),
    )
    return Scene(CROWDED, things, "grey")


def simple_scene():
    things = (
        Thing("left", "circle", "red", "plain", 8, 16, 6),
        Thing("right", "square", "blue", "plain", 23.5, 16, 6),
    )
    return Scene(SIMPLE, things, "black")


def test_captions_say_all_facts():
    assert simple_scene().caption() == "a red circle left of a blue square on a black background"
    assert crowded_scene().caption() == (
        "a striped red circle top left and a plain blue square bottom left and "
        "a checked green triangle bottom right on a grey background"
    )


def test_captions_say_only_the_facts_given():
    scene = crowded_scene()
    color, shape = Fact("top left", "color", "red"), Fact("top left", "shape", "circle")
    background = Fact(BACKGROUND, "color", "grey")
    assert scene.caption([color]) == "a red thing top left"
    assert scene.caption([shape, color]) == "a red circle top left"
    assert scene.caption([background]) == "a grey background"
    assert scene.caption([background, shape]) == "a circle top left on a grey background"
    assert scene.caption([Fact("bottom left", "present", True)]) == "a thing bottom left"
    assert (
        simple_scene().caption([Fact("right", "color", "blue")]) == "a thing left of a blue thing"
    )


def test_an_added_thing_appears_in_the_caption_and_a_deleted_one_goes():
    scene = crowded_scene()
    added = scene.edited([Fact("top right", "present", True)])
    assert "a plain cyan cross top right" in added.caption()
    assert added.mask("top right").any()
    deleted = scene.edited([Fact("top left", "present", False)])
    assert deleted.caption().startswith("a plain blue square bottom left and")
    assert Fact("top left", "present", False) in deleted.facts()
    assert not any(f.place == "top left" and f.attribute != "present" for f in deleted.facts())
    assert deleted.edited([Fact("top left", "present", True)]) == scene


def test_the_simple_preset_has_432_captions():
    scene, found, names = simple_scene(), set(), ("color", "shape")
    for one, two, background in itertools.product(
        itertools.product(SIMPLE.colors, SIMPLE.shapes),
        itertools.product(SIMPLE.colors, SIMPLE.shapes),
        SIMPLE.backgrounds,
    ):
        facts = [
            *(Fact("left", name, value) for name, value in zip(names, one, strict=True)),
            *(Fact("right", name, value) for name, value in zip(names, two, strict=True)),
            Fact(BACKGROUND, "color", background),
        ]
        found.add(scene.edited(facts).caption())
    assert len(found) == 432


@given(presets, seeds)
@settings(max_examples=60, deadline=None)
def test_masks_divide_the_picture_and_hold_its_colors(preset, seed):
    scene = draw_scene(np.random.default_rng(seed), preset)
    masks = [scene.mask(place) for place in (*preset.centers, BACKGROUND)]
    assert (np.sum(masks, axis=0) == 1).all()
    picture = scene.render()
    assert (picture[masks[-1]] == preset.backgrounds[scene.background]).all()
    for thing, mask in zip(scene.things, masks, strict=False):
        assert mask.any() == thing.present
        light = np.array(preset.colors[thing.color])
        dark = texture_pattern(thing.texture)[mask][:, None]
        assert (picture[mask] == np.where(dark, light // 2, light)).all()
    border = np.ones((32, 32), bool)
    border[1:-1, 1:-1] = False
    assert masks[-1][border].mean() > 0.5  # the reader's majority


@given(presets, seeds, st.data())
@settings(max_examples=60, deadline=None)
def test_edits_do_what_they_say_and_nothing_else(preset, seed, data):
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, preset)
    possible = ["color", "shape", BACKGROUND]
    if preset is CROWDED:
        possible += ["texture", "add" if len(scene.facts()) == 14 else "delete"]
    kinds = data.draw(st.lists(st.sampled_from(possible), max_size=3, unique=True))
    edits = draw_edits(rng, scene, kinds)
    assert [edit.kind for edit in edits] == kinds
    after = scene.edited(edits)
    told = {(edit.place, edit.attribute) for edit in edits}
    before, now = set(scene.facts()), set(after.facts())
    assert set(edits) <= now - before
    moved = {edit.place for edit in edits if edit.attribute == "present"}
    assert all((fact.place, fact.attribute) in told or fact.place in moved for fact in before ^ now)
    region = np.zeros((32, 32), bool)
    for place in {edit.place for edit in edits}:
        region |= scene.mask(place) | after.mask(place)
    assert not (changed_pixels(scene, after) & ~region).any()
    assert changed_pixels(scene, after).any() == bool(edits)
    assert after.caption() != scene.caption() or not edits
    assert [(t.x, t.y, t.radius) for t in after.things] == [
        (t.x, t.y, t.radius) for t in scene.things
    ]


def test_edits_never_touch_one_word_twice_or_a_deleted_thing():
    scene = crowded_scene().edited([Fact("top right", "present", True)])
    rng = np.random.default_rng(0)
    for _ in range(30):
        edits = draw_edits(rng, scene, ["delete", "color", "color", "shape", "texture", BACKGROUND])
        gone = edits[0].place
        assert [edit.place for edit in edits].count(gone) == 1
        assert len({(edit.place, edit.attribute) for edit in edits}) == 6
        assert sum(thing.present for thing in scene.edited(edits).things) == 3


def test_edits_that_a_scene_does_not_allow_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no edits add found"):
        draw_edits(rng, simple_scene(), ["add"])
    with pytest.raises(ValueError, match="no edits delete found"):
        draw_edits(rng, crowded_scene(), ["delete"])  # three things are the fewest
    with pytest.raises(ValueError, match="no edits texture found"):
        draw_edits(rng, simple_scene(), ["texture"])
    with pytest.raises(ValueError, match="did you mean color"):
        draw_edits(rng, simple_scene(), ["colour"])
    assert draw_edits(rng, simple_scene(), []) == ()


def test_held_out_pairs_are_kept_apart():
    rng = np.random.default_rng(3)
    assert len(CROWDED.held_out) == 0.2 * len(CROWDED.colors) * len(CROWDED.shapes)
    counts = set()
    for _ in range(200):
        scene = draw_scene(rng, CROWDED)
        assert not has_held_out(scene.things, CROWDED)  # nor among what could be added
        counts.add(sum(thing.present for thing in scene.things))
        edited = scene.edited(draw_edits(rng, scene, ["color", "shape"], held_out=False))
        assert not has_held_out([t for t in edited.things if t.present], CROWDED)
    assert counts == {3, 4}
    for _ in range(20):
        scene = draw_scene(rng, CROWDED, held_out=True)
        assert has_held_out([t for t in scene.things if t.present], CROWDED)
        plain = draw_scene(rng, CROWDED)
        edited = plain.edited(draw_edits(rng, plain, ["color", "shape"], held_out=True))
        assert has_held_out([t for t in edited.things if t.present], CROWDED)
    with pytest.raises(ValueError, match="simple holds no pairs"):
        draw_scene(rng, SIMPLE, held_out=True)


@pytest.mark.parametrize("preset", [SIMPLE, CROWDED], ids=lambda preset: preset.name)
def test_words_and_lengths_cover_all_captions(preset):
    rng, said, full, lengths = np.random.default_rng(0), set(), 0, []
    for _ in range(600):
        scene = draw_scene(rng, preset, held_out=None)
        caption = draw_caption(rng, scene)
        said |= {*caption.split(), *scene.caption().split()}
        full += caption == scene.caption()
        lengths.append(len(scene.caption().split()))
        if caption != scene.caption():
            assert len(caption.split()) <= 14
    assert said | {"thing"} == set(words(preset))
    assert max(lengths) == longest_caption(preset)
    assert full / 600 == pytest.approx(preset.full_share, abs=0.06)


def test_shapes_have_their_areas_and_directions():
    size, radius = 512, 9.0
    unit = (size / 32 * radius) ** 2
    masks = {name: shape_mask(name, 16, 16, radius, size) for name in CROWDED.shapes}
    areas = {name: mask.sum() / unit for name, mask in masks.items()}
    assert areas["circle"] == pytest.approx(math.pi, rel=0.01)
    assert areas["square"] == pytest.approx(4 * 0.88**2, rel=0.01)
    assert areas["triangle"] == pytest.approx(0.55 * 1.88**2, rel=0.01)
    assert areas["cross"] == pytest.approx(2 * 0.7 * 2 - 0.7**2, rel=0.01)
    for mask in masks.values():
        assert (mask == mask[:, ::-1]).all()
    widths = masks["triangle"].sum(1)
    assert (np.diff(widths[widths > 0]) >= 0).all()
    with pytest.raises(ValueError, match="no shape 'star'"):
        shape_mask("star", 8, 8, 6)


def test_larger_pictures_show_the_same():
    scene = crowded_scene()
    small, large = scene.render(32), scene.render(128)
    sampled = large[1::4, 1::4]
    assert (sampled == small).all(-1).mean() > 0.97
    assert (
        changed_pixels(scene, scene.edited([Fact(BACKGROUND, "color", "white")]), 128)
    ).mean() > 0.5
    assert texture_pattern("striped", 64).mean() == texture_pattern("checked", 64).mean() == 0.5


def test_wrong_names_are_told():
    scene = crowded_scene()
    with pytest.raises(ValueError, match="did you mean crowded"):
        find_preset("crowd")
    assert find_preset("simple") is SIMPLE
    with pytest.raises(ValueError, match="must be one of top left"):
        scene.mask("middle")
    with pytest.raises(ValueError, match=r"place 'topleft'.*did you mean top left"):
        scene.edited([Fact("topleft", "color", "red")])
    with pytest.raises(ValueError, match="background has no 'shape'; it has color"):
        scene.edited([Fact(BACKGROUND, "shape", "circle")])
    with pytest.raises(ValueError, match=r"color of top left: .* got 'rde'; did you mean red"):
        scene.edited([Fact("top left", "color", "rde")])
    assert {Fact("a", "present", True).kind, Fact("a", "present", False).kind} == {"add", "delete"}
    assert Fact(BACKGROUND, "color", "grey").kind in KINDS


def test_scenes_need_no_torch():
    code = "import sys, papercommons.data.scene_reading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
