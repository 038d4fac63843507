from pathlib import Path

import pytest
from gits_sampling import cli
from papercommons.cli import run_command
from papercommons.files import prepare_out
from papercommons.testing.hostile import check_options


def call(command, *more):
    verb, *words = command.split()
    return run_command(
        getattr(cli, verb), prog=f"gits-sampling-{verb}", argv=[*words, *map(str, more)]
    )


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    "command",
    [
        "fit --model x",
        "sample --model x",
        "compare --model x",
        "analyze --model x",
        "train --data x",
    ],
)
def test_every_seed_is_checked(command, seed, capsys):
    verb = command.partition(" ")[0]
    assert call(command, "--seed", seed) == 2
    said = capsys.readouterr().err
    assert said == f"gits-sampling-{verb}: error: --seed must be in [0, 2^32), got {seed}\n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Inputs, and an earlier run that holds some more."""
    monkeypatch.chdir(tmp_path)
    prepare_out("run", {})
    files = ("export/schedule.json", "ipndm-nfe6.json", "prompts.txt", "images.npz")
    places = [Path("run", name) for name in files] + [Path("model/model_index.json")]
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return places


@pytest.mark.parametrize(
    "command",
    [
        "fit --model run",
        "fit --model model --prompts run/prompts.txt",
        "sample --model run",
        "sample --model model --schedule run/ipndm-nfe6.json",
        "sample --model model --sigmas 80,1 --prompts run/prompts.txt",
        "compare --model run/export",
        "compare --model model --prompts run/prompts.txt",
        "analyze --model run",
        "analyze --model model --data run/images.npz",
        "analyze --model model --prompts run/prompts.txt",
        "train --data run/images.npz",
    ],
)
def test_overwrite_never_takes_what_a_command_reads(command, places, capsys):
    assert call(command, "--out", "run", "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run: --overwrite would delete run" in line
    assert all(path.exists() for path in places)


@pytest.mark.parametrize(
    "more",
    [
        "kdiffusion --out run/ipndm-nfe6.json",
        "diffusers --model model --out model/model_index.json",
    ],
)
def test_an_export_never_replaces_what_it_is_made_from(more, places, capsys):
    command = f"export --schedule run/ipndm-nfe6.json --to {more}"
    assert call(command) == 2
    assert "the file exists; pass --overwrite, or another --out" in capsys.readouterr().err
    assert call(command, "--overwrite") == 2
    assert "--overwrite would replace what this command reads" in capsys.readouterr().err


def test_a_long_prompt_is_no_file(capsys):
    assert call("fit --model nothing", "--prompts", "a cat " * 100) == 2
    assert "nothing: no such folder or file" in capsys.readouterr().err


def test_no_option_is_upset_by_a_value(tmp_path):
    check_options("gits-sampling", tmp_path)
