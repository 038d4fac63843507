"""`multi-edits-edit` and `-group` over a tiny, untrained folder: files, modes, continuing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")

from multi_edits import GroupingSettings, derive_edits
from multi_edits.earlier import LATENTS
from safetensors.torch import load_file, save_file

SOURCE = "a red circle left of a blue square on a black background"
TARGET = "a green circle left of a blue dog on a white background"
KINDS = ("rigid", "non-rigid", "global")  # of the edits, in groups of their own


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def without(arguments, *names):
    """Return arguments without some options and their values."""
    left = list(arguments)
    for name in names:
        at = left.index(name)
        del left[at : at + 2]
    return left


def test_the_folder_holds_what_the_pipeline_gives(edited, pipe, image):
    from multi_edits import AspectGroup

    groups = [AspectGroup(kind, (k,)) for k, kind in enumerate(KINDS)]
    options = {"mode": "parallel", "steps": 3, "groups": groups}
    done = pipe(image, source_prompt=SOURCE, target_prompt=TARGET, **options)
    assert (pixels(edited / "edited.png") == np.asarray(done.image)).all()
    assert (pixels(edited / "branches/0.png") == image).all()
    for n, picture in enumerate(done.branches, 1):
        assert (pixels(edited / f"branches/{n}.png") == np.asarray(picture)).all()
        mask = np.kron(done.masks[n - 1].numpy(), np.ones((2, 2)))
        assert (pixels(edited / f"masks/{n}.png") == 255 * mask).all()
    stored = load_file(edited / LATENTS)
    torch.testing.assert_close(stored["latents"], done.latents)
    result = result_of(edited)
    assert result["metrics"]["prompts"] == list(done.prompts)
    assert result["metrics"]["network_rows"] == done.rows
    assert [group["edits"] for group in result["metrics"]["groups"]] == [[1], [2], [3]]
    assert [row["edit"] for row in result["rows"]] == [
        "red -> green",
        "square -> dog",
        "black -> white",
    ]
    assert [row["type"] for row in result["rows"]] == ["rigid", "non-rigid", "global"]
    assert result["settings"]["seed"] == result["seed"] == 0
    page = (edited / "report.html").read_text()
    assert "1, rigid: red -&gt; green" not in page  # in pictures alone
    assert page.count("data:image/png;base64") == 3
    assert TARGET in page


def test_types_are_found_and_used_again(call, given, pipe, image, tmp_path, capsys):
    plain = without(given, "--groups")
    assert call("edit", *plain, "--out", tmp_path / "found") == 0
    assert call("group", *without(plain, "--steps", "--mode"), "--out", tmp_path / "group") == 0
    found, alone = (result_of(tmp_path / name)["metrics"] for name in ("found", "group"))
    assert found["groups"] == alone["groups"]
    for name in ("1_old", "1_new", "2_old", "2_new", "3_old", "3_new"):
        paths = [tmp_path / folder / "maps" / f"{name}.png" for folder in ("found", "group")]
        assert (pixels(paths[0]) == pixels(paths[1])).all()
    _, aspects = pipe.find_groups(
        image,
        source_prompt=SOURCE,
        edits=derive_edits(SOURCE, TARGET),
        grouping=GroupingSettings(steps=2),
    )
    for number, aspect in enumerate(aspects, 1):
        for name, levels in (("old", aspect.source), ("new", aspect.target)):
            written = pixels(tmp_path / "group/maps" / f"{number}_{name}.png")
            assert abs(written - levels.numpy()).max() <= 0.5
    again = ("--groups", tmp_path / "group", "--out", tmp_path / "again")
    capsys.readouterr()
    assert call("edit", *plain, *again, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"]["groups"] == found["groups"]
    assert told["metrics"]["network_rows"] == found["network_rows"] - 2 * 2 * 2
    files = [tmp_path / name / "edited.png" for name in ("found", "again")]
    assert (pixels(files[0]) == pixels(files[1])).all()
    assert not (tmp_path / "again/maps").exists()


def test_branches_before_a_changed_one_stay(call, given, edited, tmp_path):
    """Branches follow only those before them, so a changed third one leaves the first two."""
    changed = ("--strength", "white=0.5", "--out", tmp_path / "changed")
    assert call("edit", *given, *changed) == 0
    for name in ("1", "2"):
        close = abs(
            pixels(tmp_path / f"changed/branches/{name}.png")
            - pixels(edited / f"branches/{name}.png")
        )
        assert close.max() <= 1
    assert (pixels(tmp_path / "changed/edited.png") != pixels(edited / "edited.png")).any()


def test_kept_branches_are_not_sampled_again(call, given, edited, pipe, tmp_path):
    plain = without(given, "--groups")
    kept = ("--groups", edited, "--keep", 2, "--strength", "3=0.5", "--out", tmp_path / "out")
    assert call("edit", *plain, *kept) == 0
    result = result_of(tmp_path / "out")
    assert result["metrics"]["network_rows"] == 3 * 2 * (1 + 1)
    assert result["metrics"]["kept_branches"] == 2
    assert result["metrics"]["prompts"] == result_of(edited)["metrics"]["prompts"]
    for name in ("branches/0.png", "branches/1.png", "branches/2.png", "masks/1.png"):
        assert (pixels(tmp_path / "out" / name) == pixels(edited / name)).all()
    before, after = (load_file(place / LATENTS)["latents"] for place in (edited, tmp_path / "out"))
    assert torch.equal(before[:3], after[:3])
    assert not torch.equal(before[3], after[3])
    from multi_edits import AspectGroup, Edit

    alone = pipe(
        Image.open(edited / "branches/2.png"),
        source_prompt="a green circle left of a blue dog on a black background",
        edits=[Edit("black", "white", 9, strength=0.5)],
        groups=[AspectGroup("global", (0,), strength=0.5)],
        mode="parallel",
        steps=3,
        latents=before[2:3],
    )
    assert (pixels(tmp_path / "out/edited.png") == np.asarray(alone.image)).all()
    again = ("--groups", tmp_path / "out", "--keep", 1, "--strength", "3=0.5")
    assert call("edit", *plain, *again, "--out", tmp_path / "again") == 0


def test_a_mask_keeps_an_edit_inside(call, given, edited, tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, :16] = 255
    Image.fromarray(mask).save(tmp_path / "left.png")
    assert (
        call("edit", *given, "--mask", f"green={tmp_path}/left.png", "--out", tmp_path / "o") == 0
    )
    assert (pixels(tmp_path / "o/masks/1.png") == mask).all()
    assert len(result_of(tmp_path / "o")["notes"]) == 1
    one = ("--mask", f"green={tmp_path}/left.png", "--mode", "single", "--out", tmp_path / "single")
    assert call("edit", *given, *one) == 0
    assert result_of(tmp_path / "single")["notes"][1] == (
        "NO MASK IN EFFECT for red -> green: square -> dog shares its branch and has none"
    )


def test_images_of_other_sizes_are_resized_if_asked(call, given, image, tmp_path, capsys):
    Image.fromarray(image[:31, :29]).save(tmp_path / "odd.png")
    Image.fromarray(np.full((31, 29), 255, np.uint8)).save(tmp_path / "all.png")
    odd = [*without(given, "--image"), "--image", tmp_path / "odd.png", "--out", tmp_path / "out"]
    assert call("edit", *odd) == 2
    said = capsys.readouterr().err
    assert "29 x 31 pixels and the model needs multiples of 2" in said
    assert not (tmp_path / "out").exists()
    assert call("edit", *odd, "--resize", "--mask", f"1={tmp_path}/all.png") == 0
    assert pixels(tmp_path / "out/edited.png").shape == (32, 28, 3)


def test_the_default_has_one_branch_with_all_types(call, given, edited, pipe, image, tmp_path):
    from multi_edits import AspectGroup

    mask = np.zeros((32, 32), bool)
    mask[8:24, :16] = True
    Image.fromarray(mask).save(tmp_path / "left.png")
    chosen = [*without(given, "--mode"), "--mask", f"green={tmp_path}/left.png"]
    assert call("edit", *chosen, "--strength", "dog=0.5", "--out", tmp_path / "out") == 0
    edits = derive_edits(SOURCE, TARGET)
    edits[1] = replace(edits[1], strength=0.5)
    done = pipe(
        image,
        source_prompt=SOURCE,
        edits=edits,
        steps=3,
        grouping=GroupingSettings(steps=2),
        groups=[AspectGroup(kind, (k,)) for k, kind in enumerate(KINDS)],
        masks={0: mask},
    )
    assert (pixels(tmp_path / "out/edited.png") == np.asarray(done.image)).all()
    result = result_of(tmp_path / "out")
    assert result["settings"]["mode"] == "per-word"
    assert [(row["type"], row["branch"]) for row in result["rows"]] == [
        ("rigid", 1),
        ("non-rigid", 1),
        ("global", 1),
    ]
    assert result["title"] == "in.png: 3 edits in 1 branch"
    assert not any("NO MASK" in note for note in result["notes"])
    kept = ("--groups", tmp_path / "out", "--keep", 1, "--out", tmp_path / "kept")
    assert call("edit", *without(given, "--groups"), *kept) == 2


@pytest.mark.parametrize("mode", ["single", "sequential"])
def test_other_modes(call, given, tmp_path, mode):
    assert call("edit", *given, "--mode", mode, "--out", tmp_path / "out") == 0
    groups = [group["edits"] for group in result_of(tmp_path / "out")["metrics"]["groups"]]
    assert groups == {"single": [[1, 2, 3]], "sequential": [[1], [2], [3]]}[mode]
    assert len(list((tmp_path / "out/branches").iterdir())) == len(groups) + 1


def test_an_earlier_result_is_not_written_over(call, given, edited, capsys):
    assert call("edit", *given, "--out", edited) == 2
    assert "folder is not empty; pass --overwrite" in capsys.readouterr().err
    plain = without(given, "--groups")
    assert call("edit", *plain, "--groups", edited, "--out", edited, "--overwrite") == 2
    assert "--overwrite would delete" in capsys.readouterr().err


def test_an_earlier_run_must_fit(call, given, edited, tmp_path, capsys):
    plain = without(given, "--groups")
    copy = tmp_path / "run"
    shutil.copytree(edited, copy)
    kept = ("--groups", copy, "--keep", 1, "--out", tmp_path / "out")
    arrays = load_file(copy / LATENTS)
    save_file({"latents": arrays["latents"][:2], "masks": arrays["masks"]}, copy / LATENTS)
    assert call("edit", *plain, *kept) == 2
    assert "does not hold 3 branches" in capsys.readouterr().err
    (copy / LATENTS).write_bytes(b"x")
    assert call("edit", *plain, *kept) == 2
    assert "latents.safetensors: not readable" in capsys.readouterr().err
    result = result_of(copy) | {"data_hash": "another"}
    (copy / "result.json").write_text(json.dumps(result))
    assert call("edit", *plain, *kept) == 2
    assert "began with another --image; give the same" in capsys.readouterr().err
    (copy / LATENTS).unlink()
    assert call("edit", *plain, *kept) == 2
    assert "no latents.safetensors" in capsys.readouterr().err
