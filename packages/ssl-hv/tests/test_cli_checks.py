from pathlib import Path

import pytest
from papercommons.files import prepare_out
from papercommons.testing.hostile import check_options


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    "command",
    [
        "pretrain --data x",
        "train --data x",
        "eval --data x --checkpoint x",
        "embed x --checkpoint x",
        "predict x --checkpoint x",
        "pairs --data x",
    ],
)
def test_every_seed_is_checked(call, command, seed, capsys):
    verb = command.partition(" ")[0]
    assert call(*command.split(), "--seed", seed) == 2
    said = capsys.readouterr().err
    assert said == f"ssl-hv-{verb}: error: --seed must be in [0, 2^32), got {seed}\n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Inputs, and an earlier run that holds some more."""
    monkeypatch.chdir(tmp_path)
    prepare_out("run", {})
    files = ("words/w0/a.png", "pairs.csv", "export/config.json")
    places = [Path("run", name) for name in files]
    places += map(Path, ("words/w0/a.png", "words/test.csv", "net/config.json", "a.png"))
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return places


@pytest.mark.parametrize(
    "command",
    [
        "pretrain --data run/words",
        "train --data run/words",
        "train --data words --encoder run",
        "train --data words --pairs run/pairs.csv",
        "eval --data run/words --checkpoint net",
        "eval --data words --checkpoint run/export",
        "eval --data words --checkpoint net --pairs run/pairs.csv",
        "predict a.png run/words/w0/a.png --checkpoint net",
        "predict a.png a.png --checkpoint run",
    ],
)
def test_overwrite_never_takes_what_a_command_reads(call, command, places, capsys):
    assert call(*command.split(), "--out", "run", "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run: --overwrite would delete run" in line
    assert all(path.exists() for path in places)


def test_pairs_never_replace_a_file_of_the_data(call, places, capsys):
    command = ("pairs", "--data", "words", "--out", "words/test.csv")
    assert call(*command) == 2
    assert "the file exists; pass --overwrite, or another --out" in capsys.readouterr().err
    assert call(*command, "--overwrite") == 2
    assert "--overwrite would replace what this command reads" in capsys.readouterr().err


def test_no_option_is_upset_by_a_value(tmp_path):
    check_options("ssl-hv", tmp_path)
