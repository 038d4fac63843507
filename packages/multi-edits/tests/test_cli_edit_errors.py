"""What `multi-edits-edit` says of bad input: one line, before torch where that can be known."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from multi_edits.earlier import LATENTS
from PIL import Image

pytest.importorskip("diffusers")

SOURCE = "a red circle left of a blue square on a black background"
TARGET = "a green circle left of a blue dog on a white background"


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
        (("--dtype", "float16"), "float16 needs a GPU"),
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
    assert run_without_torch([*map(str, given), "--out", f"{tmp_path}/o", *words])
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
    loaded = sys.modules.pop("multi_edits.editing", None)
    try:
        if "--accelerator" not in words:
            words = [*words, "--accelerator", "cpu"]
        return run_command(cli.edit, prog="multi-edits-edit", argv=words) == 2
    finally:
        opening.open_pipeline = kept
        sys.modules.pop("multi_edits.editing", None)
        if loaded is not None:
            sys.modules["multi_edits.editing"] = loaded


def made_per_word(run, copy):
    """Copy a run that was made with the default mode, as far as --keep looks at it."""
    copy.mkdir()
    shutil.copy(run / LATENTS, copy)
    result = json.loads((run / "result.json").read_text())
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
    assert call("edit", *given, *arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
