from __future__ import annotations

import csv
import dataclasses
import json
import logging

import numpy as np
import pytest
from defi_net import synth
from defi_net.engines import Inpainted
from defi_net.layouts import find_samples
from defi_net.reading import read_mask, read_photo, read_sample
from defi_net.recipe import Recipe
from defi_net.synth import synthesize
from papercommons.errors import DataError
from PIL import Image

RECIPE = Recipe(engines=("patch",), masks=("box", "blob"), size=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten photographs, each of its own colour, and a copy of the first."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(10):
        photo = rng.integers(0, 20, (48, 64, 3), dtype=np.uint8) + np.uint8(20 * number)
        Image.fromarray(photo).save(folder / f"photo {number}.png")
    (folder / "copy.png").write_bytes((folder / "photo 0.png").read_bytes())
    return folder


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_is_written_can_be_read_and_trained_on(photos, tmp_path, caplog):
    out = tmp_path / "out"
    recipe = dataclasses.replace(RECIPE, authentic=0.3)
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        rows = synthesize(photos, str(out), recipe=recipe, per_image=3)
    assert "photo 0.png is the same picture as" in caplog.text
    assert len(rows) == 30
    samples = find_samples(out)
    with (out / "manifest.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == [row["image"] for row in rows]
    methods = [sample.method for sample in samples]
    assert 3 <= methods.count("authentic") <= 16
    assert set(methods) == {"authentic", "patch"}
    for sample in samples:
        photo, mask = read_sample(sample)
        assert photo.shape == (32, 32, 3)
        assert bool(mask.any()) == (sample.method != "authentic")
    assert sorted(path.name for path in out.iterdir()) == [
        "config.yaml",
        "images",
        "labels",
        "manifest.csv",
    ]


def test_no_photograph_is_in_two_splits(photos, tmp_path):
    rows = synthesize(
        photos,
        str(tmp_path / "out"),
        recipe=RECIPE,
        per_image=3,
        val_fraction=0.2,
        test_fraction=0.3,
    )
    of_source = {row["source_hash"]: set() for row in rows}
    for row in rows:
        of_source[row["source_hash"]].add(row["split"])
    splits = [split for (split,) in of_source.values()]
    assert {name: splits.count(name) for name in ("train", "val", "test")} == {
        "train": 5,
        "val": 2,
        "test": 3,
    }


def test_outside_the_mask_the_photograph_stays(photos, tmp_path):
    recipe = dataclasses.replace(RECIPE, size=None)
    rows = synthesize(photos, str(tmp_path / "out"), recipe=recipe)
    for row in rows:
        mask = read_mask(tmp_path / "out" / row["mask"]).mask
        photo = read_photo(tmp_path / "out" / row["image"])
        source = read_photo(photos / row["source"])
        np.testing.assert_array_equal(photo[~mask], source[~mask])
        assert (photo[mask] != source[mask]).any()
        assert row["area"] == round(mask.mean(), 4)


def whole_picture(photo, mask, rng):
    """An engine that changes every pixel, as an autoencoder does."""
    return Inpainted(255 - photo)


def test_modes_paste_or_keep_the_whole(photos, tmp_path, monkeypatch):
    for mode in ("sp", "fr"):
        monkeypatch.setattr(synth, "_engine", lambda name, options: whole_picture)
        monkeypatch.setattr(synth, "check_recipe", lambda recipe: None)
        recipe = dataclasses.replace(RECIPE, engines=("diffusers:x/sd2",), mode=mode, size=None)
        rows = synthesize(photos, str(tmp_path / mode), recipe=recipe)
        assert {row["method"] for row in rows} == {
            "diffusers-sd2" if mode == "sp" else "diffusers-sd2-fr"
        }
        for row in rows:
            mask = read_mask(tmp_path / mode / row["mask"]).mask
            photo = read_photo(tmp_path / mode / row["image"])
            source = read_photo(photos / row["source"])
            np.testing.assert_array_equal(photo[mask], 255 - source[mask])
            outside = source if mode == "sp" else 255 - source
            np.testing.assert_array_equal(photo[~mask], outside[~mask])


def test_items_follow_from_seed_and_photo_alone(photos, tmp_path):
    recipe = dataclasses.replace(RECIPE, sensor_noise=(1, 3), post={"jpeg": (60, 90)})
    synthesize(photos, str(tmp_path / "all"), recipe=recipe, per_image=2)
    few = [photos / f"photo {k}.png" for k in (3, 5, 8)]
    synthesize(few, str(tmp_path / "few"), recipe=recipe, val_fraction=0, test_fraction=0)
    everything, some = files(tmp_path / "all"), files(tmp_path / "few")
    pictures = {name: data for name, data in some.items() if name.endswith(".png")}
    assert len(pictures) == 6
    assert pictures.items() <= everything.items()
    other = dataclasses.replace(recipe, seed=1)
    synthesize(few, str(tmp_path / "other"), recipe=other, val_fraction=0, test_fraction=0)
    changed = files(tmp_path / "other")
    assert all(changed[name] != data for name, data in pictures.items())


def test_workers_change_nothing(photos, tmp_path):
    few = [photos / f"photo {k}.png" for k in range(3)]
    options = {"recipe": RECIPE, "per_image": 2, "val_fraction": 0, "test_fraction": 0}
    synthesize(few, str(tmp_path / "alone"), **options)
    synthesize(few, str(tmp_path / "two"), num_workers=2, **options)
    assert files(tmp_path / "alone") == files(tmp_path / "two")


def test_engines_take_turns_and_are_recorded(photos, tmp_path):
    pytest.importorskip("cv2")
    recipe = Recipe(
        engines=("telea", "ns"),
        masks=("thin",),
        size=32,
        scale=(0.7, 1.0),
        sensor_noise=(2, 6),
        post={"resize": (0.5, 0.9), "webp": (80, 90)},
    )
    rows = synthesize(photos, str(tmp_path / "out"), recipe=recipe, per_image=4)
    assert [row["method"] for row in rows].count("ns") == 20
    for row in rows:
        assert row["engine"].startswith("radius=")
        assert row["mask_kind"] == "thin"
        assert 2 <= row["sensor_noise"] <= 6
        steps = dict(word.split("=") for word in row["post"].split(";"))
        side = round(32 * float(steps["resize"]))
        assert read_photo(tmp_path / "out" / row["image"]).shape == (side, side, 3)
        assert read_mask(tmp_path / "out" / row["mask"]).mask.shape == (side, side)


def test_an_interrupted_run_goes_on(photos, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = {"recipe": RECIPE, "per_image": 2}
    synthesize(photos, str(whole), **options)
    calls = []
    make = synth._make

    def stop_after_seven(item, recipe, folder):
        calls.append(item.name)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return make(item, recipe, folder)

    monkeypatch.setattr(synth, "_make", stop_after_seven)
    with pytest.raises(KeyboardInterrupt):
        synthesize(photos, str(out), **options)
    assert not (out / "manifest.csv").exists()
    with (out / synth.PROGRESS).open("a") as file:
        file.write('{"name": "cut of')
    with pytest.raises(DataError, match="pass --resume, --overwrite, or another --out"):
        synthesize(photos, str(out), **options)
    with pytest.raises(DataError, match="per_image was 2 and is now 3"):
        synthesize(photos, str(out), recipe=RECIPE, per_image=3, resume=True)
    calls.clear()
    monkeypatch.setattr(synth, "_make", lambda *given: calls.append(given) or make(*given))
    synthesize(photos, str(out), resume=True, **options)
    assert len(calls) == 13
    assert files(out) == files(whole)
    synthesize(photos, str(out), overwrite=True, **options)
    assert files(out) == files(whole)


def test_bad_photographs_stop_or_are_left_out(photos, tmp_path, caplog):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        name = f"photo {number}.png"
        (folder / name).write_bytes((photos / name).read_bytes())
    (folder / "cut.png").write_bytes((photos / "photo 6.png").read_bytes()[:400])
    Image.new("RGB", (30, 80)).save(folder / "narrow.png")
    options = {"recipe": RECIPE, "val_fraction": 0, "test_fraction": 0}
    with pytest.raises(DataError, match=r"cut\.png: not a readable image"):
        synthesize(folder, str(tmp_path / "one"), **options)
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        rows = synthesize(folder, str(tmp_path / "two"), skip_bad=True, **options)
    assert len(rows) == 5
    assert "leaves out 2 photographs" in caplog.text
    assert "is 30x80, too small for --size 32" in caplog.text
    with pytest.raises(DataError, match="no photograph can be used"):
        synthesize(folder / "narrow.png", str(tmp_path / "three"), skip_bad=True, **options)


def test_masks_beside_their_photographs_are_no_photographs(photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[:12] = 255
    for number in range(3):
        name = f"photo {number}"
        (folder / f"{name}.jpg").write_bytes((photos / f"{name}.png").read_bytes())
        Image.fromarray(mask).save(folder / f"{name}_mask.png")
    recipe = Recipe(engines=("patch",), masks=("file",), mask_folder=str(folder), size=None)
    rows = synthesize(folder, str(tmp_path / "out"), recipe=recipe, val_fraction=0, test_fraction=0)
    assert [row["area"] for row in rows] == [0.25] * 3


def test_out_must_not_harm_the_photographs(photos, tmp_path):
    with pytest.raises(DataError, match=r"lies in .*, where the photographs are"):
        synthesize(photos, str(photos / "out"), recipe=RECIPE)
    out = tmp_path / "out"
    synthesize(photos, str(out), recipe=RECIPE)
    with pytest.raises(DataError, match="--overwrite would delete"):
        synthesize(out / "images", str(out), recipe=RECIPE, overwrite=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engines": ()}, "engines and masks must name at least one"),
        ({"engines": ("tele",)}, "did you mean telea"),
        ({"mode": "fr"}, "mode fr needs an engine that makes whole pictures, patch does not"),
        ({"mode": "paste"}, "mode must be one of sp, fr"),
        ({"format": "bmp"}, "format must be one of png, jpg, webp"),
        ({"area": (0.5, 0.2)}, "area must be"),
        ({"masks": ("disc",)}, "no mask 'disc'"),
        ({"masks": ("file",)}, "need mask_folder"),
        ({"size": 8}, "size must be >= 16"),
        ({"scale": (2, 1)}, "scale must be"),
        ({"sensor_noise": (3, 1)}, "sensor_noise must be"),
        ({"authentic": 1.0}, "authentic must be"),
        ({"post": {"jpeg": (0, 200)}}, "jpeg must be"),
    ],
)
def test_bad_recipes_are_refused_before_anything_is_written(photos, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        synthesize(photos, str(tmp_path / "out"), recipe=dataclasses.replace(RECIPE, **changes))
    assert not (tmp_path / "out").exists()


def test_other_bad_options(photos, tmp_path):
    for options, message in (
        ({"per_image": 0}, "per_image must be >= 1"),
        ({"val_fraction": 0.9, "test_fraction": 0.2}, "shares must be"),
    ):
        with pytest.raises(ValueError, match=message):
            synthesize(photos, str(tmp_path / "out"), recipe=RECIPE, **options)
    with pytest.raises(DataError, match="too few for train, val and test"):
        synthesize(photos / "photo 1.png", str(tmp_path / "out"), recipe=RECIPE)
    assert not (tmp_path / "out").exists()


def test_settings_are_plain_values():
    recipe = dataclasses.replace(RECIPE, post={"jpeg": (60, 90)})
    assert json.loads(json.dumps(recipe.settings()))["post"] == {"jpeg": [60, 90]}
