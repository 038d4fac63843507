"""`multi-edits-edit` and `-group` over a tiny, untrained folder: files, continuing, bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
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
GROUPS = [
    {"kind": "rigid", "edits": [1]},
    {"kind": "non-rigid", "edits": [2]},
    {"kind": "global", "edits": [3]},
]
QUICK = ("--steps", 3, "--group-steps", 2, "--mode", "parallel")


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture(scope="module")
def given(folder, image, tmp_path_factory):
    """The arguments of a plain edit, with groups so that there are three branches."""
    place = tmp_path_factory.mktemp("given")
    Image.fromarray(image).save(place / "in.png")
    (place / "groups.json").write_text(json.dumps(GROUPS))
    asked = ("--source", SOURCE, "--target", TARGET, "--groups", place / "groups.json")
    return ("--model", folder, "--image", place / "in.png", *asked, *QUICK)


@pytest.fixture(scope="module")
def edited(call, given, tmp_path_factory):
    out = tmp_path_factory.mktemp("edited") / "out"
    assert call("edit", *given, "--out", out) == 0
    return out


def without(arguments, *names):
    """Return arguments without some options and their values."""
    left = list(arguments)
    for name in names:
        at = left.index(name)
        del left[at : at + 2]
    return left


def test_the_folder_holds_what_the_pipeline_gives(edited, pipe, image):
    from multi_edits import AspectGroup

    groups = [AspectGroup(g["kind"], tuple(k - 1 for k in g["edits"])) for g in GROUPS]
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
        groups=[AspectGroup(g["kind"], tuple(k - 1 for k in g["edits"])) for g in GROUPS],
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "{tmp}"), "no model_index.json"),
        (("--model", "{tmp}/none"), "no such folder, and not a hub id"),
        (("--model", "{flow}"), "FluxPipeline is a flow model"),
        (("--model", "{sample}"), "the network predicts sample"),
        (("--image", "{tmp}/none.png"), "no such file; --image takes a picture"),
        (("--image", "{tmp}/text.png"), "not a readable image"),
        (("--target", SOURCE), "no edits"),
        (("--target", " "), "--target is empty"),
        (("--source", "[]"), "--source is empty"),
        (("--edits", "{tmp}/cat.json"), "give either --target"),
        (("--steps", 1), "--steps must be >= 2"),
        (("--group-steps", 1), "--group-steps must be >= 2"),
        (("--guidance", -1), "--guidance must be a number >= 0"),
        (("--cross-ratio", 1.1), "--cross-ratio must be in [0, 1]"),
        (("--theta", -1), "--theta must be in [0, 1]"),
        (("--map-level", -1), "--map-level must be >= 0"),
        (("--mode", "both"), "--mode: expected one of per-word, parallel, single"),
        (("--compat", "reference", "--no-layout"), "--compat reference needs the layout"),
        (("--compat", "reference", "--mode", "per-word"), "add --mode parallel"),
        (("--precision", "float16"), "float16 needs a GPU"),
        (("--offload",), "--offload is for a GPU"),
        (("--strength", "cat=1"), "no edit is called 'cat'"),
        (("--mask", "green={tmp}/none.png"), "none.png: no such file"),
        (("--mask", "green={tmp}/small.png"), "8 x 8 pixels and the image 32 x 32"),
        (("--groups", "{tmp}/none"), "no such file"),
        (("--groups", "{tmp}/cat.json"), "group 1: kind must be"),
        (("--keep", 1), "--keep needs --groups with the --out folder"),
        (("--keep", -1), "--keep must be >= 0"),
        (("--groups", "{run}", "--keep", 1, "--mode", "single"), "--keep needs --mode parallel"),
        (("--groups", "{one}", "--keep", 1), "made with --mode per-word; --keep needs one of"),
        (("--groups", "{run}", "--keep", 3), "has 3 branches; keep at least 1 and leave at"),
        (("--groups", "{run}", "--keep", 1, "--strength", "1=2"), "was changed; keep fewer"),
        (("--groups", "{run}", "--keep", 1, "--source", SOURCE.replace("a r", "the r"),
          "--target", TARGET.replace("a g", "the g")), "began with another --source"),
        (("--groups", "{tmp}", "--keep", 1), "no such file"),
        (("--out", "{tmp}"), "holds no run"),
        (("--variants", 1), "no option --variants; did you mean --variant?"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_line_before_torch(
    given, edited, folder, tmp_path, capsys, arguments, message
):
    prepare(tmp_path, folder)
    places = {"tmp": tmp_path, "run": edited, "flow": tmp_path / "flow"}
    places |= {"sample": tmp_path / "sample", "one": tmp_path / "one"}
    if "{one}" in arguments:
        made_per_word(edited, tmp_path / "one")
    words = [str(word).format(**places) for word in arguments]
    names = {word for word in words if word.startswith("--")}
    left = list(given)
    for name in names & {str(word) for word in given}:
        left = without(left, name)
    call = run_without_torch
    assert call(
        [*map(str, left), *([] if "--out" in names else ["--out", f"{tmp_path}/o"]), *words]
    )
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert said.startswith("multi-edits-edit: error: ")
    assert not (tmp_path / "o").exists()


def run_without_torch(words):
    """Run the command where opening a model is a failure; return whether it ended with 2."""
    from multi_edits import cli, opening
    from papercommons.cli import run_command

    def open_pipeline(model, options):
        raise AssertionError("the model was opened before all cheap checks")

    kept, opening.open_pipeline = opening.open_pipeline, open_pipeline
    loaded = sys.modules.pop("multi_edits.edit_command", None)
    try:
        if "--accelerator" not in words:
            words = [*words, "--accelerator", "cpu"]
        return run_command(cli.edit, prog="multi-edits-edit", argv=words) == 2
    finally:
        opening.open_pipeline = kept
        sys.modules.pop("multi_edits.edit_command", None)
        if loaded is not None:
            sys.modules["multi_edits.edit_command"] = loaded


def made_per_word(run, copy):
    """Copy a run that was made with the default mode, as far as --keep looks at it."""
    copy.mkdir()
    shutil.copy(run / LATENTS, copy)
    result = result_of(run)
    result["settings"]["mode"] = "per-word"
    (copy / "result.json").write_text(json.dumps(result))


def prepare(place, folder):
    """Write broken files."""
    (place / "text.png").write_text("no image")
    (place / "cat.json").write_text('[{"old": "red", "new": "green"}]')
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(place / "small.png")
    (place / "flow").mkdir()
    (place / "flow/model_index.json").write_text(
        '{"_class_name": "FluxPipeline", "transformer": []}'
    )
    (place / "sample/scheduler").mkdir(parents=True)
    shutil.copy(folder / "model_index.json", place / "sample")
    (place / "sample/scheduler/scheduler_config.json").write_text('{"prediction_type": "sample"}')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source", "a " * 30 + SOURCE, "--target", "a " * 30 + TARGET), "would be cut off"),
        (("--steps", 5000), "steps"),
        (("--map-level", 9), "level"),
    ],
)
def test_what_only_the_model_can_tell(call, given, tmp_path, capsys, arguments, message):
    left = list(given)
    for name in {str(word) for word in arguments if str(word).startswith("--")} & {*map(str, left)}:
        left = without(left, name)
    assert call("edit", *left, *arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


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


def test_help_of_every_command_needs_no_torch():
    code = """
import sys
from papercommons.cli import build_parser
from multi_edits import cli
for verb in ("edit", "group", "train", "make_scenes", "demo", "predict", "evaluate"):
    text = build_parser(getattr(cli, verb), verb).format_help()
    assert "usage" in text
    getattr(cli, "main_" + verb.replace("evaluate", "eval"))
assert not {"torch", "diffusers", "gradio", "matplotlib"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
