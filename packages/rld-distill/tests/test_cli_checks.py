from pathlib import Path

import pytest
from papercommons.cli import run_command
from papercommons.files import prepare_out
from papercommons.testing.hostile import check_options
from rld_distill import cli


def call(*words):
    verb, *rest = map(str, words)
    command = vars(cli) | {"eval": cli.evaluate}
    return run_command(command[verb], prog=f"rld-distill-{verb}", argv=rest)


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    "command",
    [
        "train --data x",
        "teacher --data x",
        "cache --data x --teacher x",
        "eval --data x --checkpoint x",
        "predict x --checkpoint x",
        "compare --data x",
    ],
)
def test_every_seed_is_checked(command, seed, capsys):
    verb = command.partition(" ")[0]
    assert call(*command.split(), "--seed", seed) == 2
    said = capsys.readouterr().err
    assert said == f"rld-distill-{verb}: error: --seed must be in [0, 2^32), got {seed}\n"
    assert call("compare", "--data", "digits", "--seeds", f"0,{seed}") == 2
    assert "--seeds must be different numbers in [0, 2^32)" in capsys.readouterr().err


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Inputs, and an earlier run that holds some more."""
    monkeypatch.chdir(tmp_path)
    prepare_out("run", {})
    files = ("images.npz", "teacher/export/config.json", "export/config.json", "a.png")
    places = [Path("run", name) for name in (*files, "teacher.pt", "logits.safetensors")]
    places += map(Path, ("a.png", "a.pt", "net/config.json"))
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return places


@pytest.mark.parametrize(
    "command",
    [
        "train --data run/images.npz",
        "train --data digits --teacher run/teacher",
        "train --data digits --teacher resnet8 --teacher-checkpoint run/teacher.pt",
        "train --data digits --teacher-cache run/logits.safetensors",
        "teacher --data run/images.npz",
        "eval --data run/images.npz --checkpoint net",
        "eval --data digits --checkpoint run/teacher",
        "eval --data digits --checkpoint net --teacher run/teacher",
        "predict run/a.png --checkpoint net",
        "predict a.png --checkpoint run",
        "export --checkpoint run",
        "compare --data run/images.npz",
        "compare --data digits --teacher run/teacher",
        "compare --data digits --teacher resnet8 --teacher-checkpoint run/teacher.pt",
    ],
)
def test_overwrite_never_takes_what_a_command_reads(command, places, capsys):
    assert call(*command.split(), "--out", "run", "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run: --overwrite would delete run" in line
    assert all(path.exists() for path in places)


@pytest.mark.parametrize(
    "command",
    [
        "cache --data run/images.npz --teacher net --out run/images.npz",
        "cache --data digits --teacher net --out net/config.json",
        "cache --data digits --teacher resnet8 --teacher-checkpoint a.pt --out a.pt",
    ],
)
def test_the_cache_never_replaces_what_it_is_made_from(command, places, capsys):
    assert call(*command.split()) == 2
    assert "the file exists; pass --overwrite, or another --out" in capsys.readouterr().err
    assert call(*command.split(), "--overwrite") == 2
    assert "--overwrite would replace what this command reads" in capsys.readouterr().err


def test_no_option_is_upset_by_a_value(tmp_path):
    check_options("rld-distill", tmp_path)
