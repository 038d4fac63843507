"""Edits of scenes in words, and benchmarks made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from multi_edits.benchmark import open_benchmark
from multi_edits.edits import Edit, apply_edits, locate_edits
from multi_edits.scene_edits import scene_edits
from multi_edits.synthesizing import bracketed
from papercommons.data.scene_reading import read_scene
from papercommons.data.scenes import (
    CROWDED,
    KINDS,
    SIMPLE,
    Fact,
    Scene,
    Thing,
    draw_edits,
    draw_scene,
    find_preset,
)
from PIL import Image


@pytest.mark.parametrize("preset", [SIMPLE, CROWDED], ids=lambda preset: preset.name)
def test_edits_of_the_caption_say_what_changes(preset):
    rng, done = np.random.default_rng(0), 0
    kinds = ("color", "shape", "background") if preset is SIMPLE else KINDS
    for _ in range(60):
        scene = draw_scene(rng, preset)
        try:
            facts = draw_edits(rng, scene, [str(kind) for kind in rng.choice(kinds, size=4)])
        except ValueError:
            continue
        edits = scene_edits(scene, facts)
        assert [edit.action for edit in edits] == [
            {"add": "add", "delete": "delete"}.get(fact.kind, "swap") for fact in facts
        ]
        located = locate_edits(scene.caption(), edits)
        assert located == edits
        assert apply_edits(scene.caption(), located).text == scene.edited(facts).caption()
        for fact, edit in zip(facts, edits, strict=True):  # each alone is a fact alone
            alone = apply_edits(scene.caption(), [edit]).text
            assert alone == scene.edited([fact]).caption()
            assert edit.object == ("" if fact.kind == "background" else fact.place)
        done += 1
    assert done > 5


def test_a_scene_of_which_nothing_stays():
    places = list(CROWDED.centers)
    things = tuple(
        Thing(at, "circle", "red", "plain", *CROWDED.centers[at], 5, present=at == places[0])
        for at in places
    )
    scene = Scene(CROWDED, things, "white")
    with pytest.raises(ValueError, match="no thing of the scene stays"):
        scene_edits(scene, [Fact(places[0], "present", False), Fact(places[1], "present", True)])


def test_brackets_mark_what_is_new():
    edits = [Edit("cat", "red dog", 1), Edit("on", "", 2), Edit("", "big", 4)]
    assert bracketed("a cat on a chair", edits) == "a [red dog] a [big] chair"


@pytest.fixture(scope="module")
def made(call, tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / "set"
    given = ("--scenes", "crowded", "--count", 12, "--edits", "1,4", "--seed", 3)
    assert call("make-scenes", "--out", out, *given) == 0
    return out


def test_the_benchmark_reads_it_without_defects(made):
    benchmark = open_benchmark(made, border=False)
    assert len(benchmark) == 12
    assert not benchmark.defects
    facts = json.loads((made / "scenes.json").read_text())
    for record in benchmark:
        known = facts[record.id]
        assert len(record.edits) == (1 if int(record.id) % 2 == 0 else 4)
        assert apply_edits(record.source, record.edits).text == record.target
        things = tuple(Thing(**thing) for thing in known["things"])
        before = Scene(find_preset(known["preset"]), things, known["background"])
        after = before.edited(Fact(*fact) for fact in known["edits"])
        assert (before.caption(), after.caption()) == (record.source, record.target)
        source = np.asarray(record.open_image())
        target = np.asarray(Image.open(made / "targets" / record.category / f"{record.id}.png"))
        assert read_scene(source, before) == before.facts()
        assert read_scene(target, after) == after.facts()
        assert ((source != target).any(-1) == record.mask).all()
        if not record.aspect_mapping:
            continue  # a lone edit of the background
        whole = [k for k, edit in enumerate(record.edits) if edit.object == ""]
        assert whole == [k for k, number in enumerate(record.types) if number == 8]


def test_the_same_seed_makes_the_same_set(call, made, tmp_path):
    given = ("--scenes", "crowded", "--count", 4, "--edits", "1,4", "--seed", 3)
    assert call("make-scenes", "--out", tmp_path / "again", *given) == 0
    first, again = (
        json.loads((folder / "mapping_file.json").read_text())
        for folder in (made, tmp_path / "again")
    )
    assert again == {name: first[name] for name in again}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", 0), "--count must be >= 1"),
        (("--edits", "0"), "--edits must be 1 to 8 each"),
        (("--edits", ""), "--edits must be 1 to 8 each"),
        (("--kinds", "colour"), "did you mean color?"),
        (("--kinds", "add"), "--kinds: simple scenes have color, shape, background"),
        (("--kinds", "background", "--edits", "2"), "no scene found with 2 edits of background"),
        (("--held-out", "yes"), "simple scenes hold nothing out"),
        (("--size", 20), "--size must be a multiple of 8"),
    ],
)
def test_bad_options(call, tmp_path, capsys, arguments, message):
    assert call("make-scenes", "--out", tmp_path / "out", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
