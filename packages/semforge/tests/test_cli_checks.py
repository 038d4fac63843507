from pathlib import Path

import pytest
from papercommons.files import prepare_out
from papercommons.testing.hostile import check_options


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    "command",
    [
        "train --data x",
        "eval --data x --checkpoint x",
        "predict x --checkpoint x",
        "synth --faces x",
    ],
)
def test_every_seed_is_checked(call, command, seed, capsys):
    verb = command.partition(" ")[0]
    assert call(*command.split(), "--seed", seed) == 2
    said = capsys.readouterr().err
    assert said == f"semforge-{verb}: error: --seed must be in [0, 2^32), got {seed}\n"


@pytest.mark.parametrize(
    "command",
    [
        "train --data run/list.txt",
        "train --data list.txt --val run/list.txt",
        "train --data list.txt --test run/list.txt",
        "train --data list.txt --root run/images",
        "train --data list.txt --crop boxes --boxes run/boxes.csv",
        "train --data list.txt --graph run/own.yaml",
        "train --data list.txt --pretrained run/weights.pt",
        "eval --data run/list.txt --checkpoint net",
        "eval --data list.txt --checkpoint run",
        "eval --data list.txt --checkpoint net --crop boxes --boxes run/boxes.csv",
        "eval --data list.txt --checkpoint net --root run/images",
        "predict a.png run/images --checkpoint net",
        "predict a.png --checkpoint run/export",
        "predict a.png --checkpoint net --boxes run/boxes.csv",
        "synth --faces a.png,run/images",
        "synth --faces a.png --graph run/own.yaml",
    ],
)
def test_overwrite_never_takes_what_a_command_reads(call, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prepare_out("run", {})
    files = ("list.txt", "images/a.png", "boxes.csv", "own.yaml", "weights.pt")
    files = [f"run/{name}" for name in (*files, "export/config.json")]
    files += ["a.png", "list.txt", "net/config.json"]
    for path in map(Path, files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert call(*command.split(), "--out", "run", "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run: --overwrite would delete run" in line
    assert all(Path(file).exists() for file in files)


def test_no_option_is_upset_by_a_value(tmp_path):
    check_options("semforge", tmp_path)
