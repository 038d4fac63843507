import subprocess
import sys
from pathlib import Path

import pytest
from papercommons.files import prepare_out
from papercommons.testing.hostile import check_options
from PIL import Image

PROMPTS = "--source cat --target dog"


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    "command",
    [
        "edit --model x --image x --source x",
        "group --model x --image x --source x",
        "train",
        "make-scenes",
        "predict --model x --data x",
        "eval --data x --edited x",
    ],
)
def test_every_seed_is_checked(call, command, seed, capsys):
    verb = command.partition(" ")[0]
    assert call(*command.split(), "--seed", seed) == 2
    said = capsys.readouterr().err
    assert said == f"multi-edits-{verb}: error: --seed must be in [0, 2^32), got {seed}\n"


@pytest.mark.parametrize(
    "command",
    [
        f"edit --model run/model --image a.png {PROMPTS}",
        f"edit --model o/m --image run/a.png {PROMPTS}",
        "edit --model o/m --image a.png --source cat --edits run/list.json",
        f"edit --model o/m --image a.png {PROMPTS} --mask dog=run/a.png",
        f"edit --model o/m --image a.png {PROMPTS} --groups run",
        f"group --model run/model --image a.png {PROMPTS}",
        f"group --model o/m --image run/a.png {PROMPTS}",
        "group --model o/m --image a.png --source cat --edits run/list.json",
        "predict --model run/model --data bench",
        "predict --model o/m --data run/bench",
        "eval --data run/bench --edited edited",
        "eval --data bench --edited edited,own=run/edited",
        "eval --data bench --edited edited --clip run/model",
        "eval --data bench --edited edited --clip open_clip:ViT-B-32=run/list.json",
        "eval --data bench --edited edited --dino run/model",
        "eval --data bench --edited edited --lpips run/list.json",
    ],
)
def test_overwrite_never_takes_what_a_command_reads(call, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prepare_out("run", {})
    files = ("model/model_index.json", "list.json", "bench/mapping_file.json", "edited/a.png")
    places = [Path("run", name) for name in files]
    places += map(Path, ("bench/mapping_file.json", "edited/a.png"))
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in map(Path, ("a.png", "run/a.png")):
        Image.new("RGB", (32, 32)).save(path)
        places.append(path)
    assert call(*command.split(), "--out", "run", "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run: --overwrite would delete run" in line
    assert all(path.exists() for path in places)


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


def test_no_option_is_upset_by_a_value(tmp_path):
    check_options("multi-edits", tmp_path)
