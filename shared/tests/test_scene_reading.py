from __future__ import annotations

import numpy as np
import pytest
from papercommons.data.scene_reading import read_scene
from papercommons.data.scenes import (
    BACKGROUND,
    CROWDED,
    SIMPLE,
    Fact,
    draw_edits,
    draw_scene,
)

both = pytest.mark.parametrize("preset", [SIMPLE, CROWDED], ids=lambda preset: preset.name)


def scenes(preset, count=60, seed=5):
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, preset, held_out=None) for _ in range(count)]


@both
@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("size", [32, 48])
def test_what_was_drawn_is_read(preset, search, size):
    for scene in scenes(preset):
        assert read_scene(scene.render(size), scene, search=search) == scene.facts()


@both
def test_noise_rarely_matters(preset):
    rng, right = np.random.default_rng(0), []
    for scene in scenes(preset):
        noisy = scene.render() + rng.normal(0, 30, (32, 32, 3))
        right.append(read_scene(np.clip(noisy, 0, 255).astype(np.uint8), scene) == scene.facts())
    assert np.mean(right) > 0.9


def test_only_geometry_is_taken_from_the_scene():
    rng = np.random.default_rng(1)
    for scene in scenes(CROWDED):
        kinds = ["color", "shape", "texture", BACKGROUND]
        after = scene.edited(draw_edits(rng, scene, kinds))
        assert read_scene(after.render(), scene) == after.facts()
        assert read_scene(scene.render(), after) == scene.facts()


def test_absence_is_read():
    scene = scenes(CROWDED)[0]
    gone = scene.edited([Fact(place, "present", False) for place in CROWDED.centers])
    for search in (False, True):
        assert read_scene(gone.render(), scene, search=search) == gone.facts()
    dot = gone.render()
    dot[7:10, 7:10] = CROWDED.colors["red"]  # too small for a thing
    assert read_scene(dot, scene, search=True) == gone.facts()


def test_things_elsewhere_are_found_by_searching():
    """The picture has another jitter than the scene that it is read with."""
    near, far = scenes(SIMPLE, 60, seed=5), scenes(SIMPLE, 60, seed=6)
    plain, searched = [], []
    for scene, other in zip(near, far, strict=True):
        plain.append(read_scene(scene.render(), other) == scene.facts())
        searched.append(read_scene(scene.render(), other, search=True) == scene.facts())
    assert np.mean(searched) == 1 > np.mean(plain)


def test_wrong_pictures_are_told():
    scene = scenes(SIMPLE, 1)[0]
    picture = scene.render()
    with pytest.raises(ValueError, match=r"must be \(H, H, 3\), got \(32, 20, 3\)"):
        read_scene(picture[:, :20], scene)
    with pytest.raises(ValueError, match=r"must be \(H, H, 3\), got \(32, 32\)"):
        read_scene(picture[..., 0], scene)
    with pytest.raises(ValueError, match="got float32"):
        read_scene(picture.astype(np.float32), scene)
