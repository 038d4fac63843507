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
        "explain x --checkpoint x",
        "audit --data x",
        "phantoms --out x",
    ],
)
def test_every_seed_is_checked(call, command, seed, capsys):
    verb = command.partition(" ")[0]
    assert call(*command.split(), "--seed", seed) == 2
    said = capsys.readouterr().err
    assert said == f"nlran-{verb}: error: --seed must be in [0, 2^32), got {seed}\n"


@pytest.mark.parametrize(
    "command",
    [
        "train --data run/ct",
        "train --data ct --manifest run/list.csv",
        "train --data ct --lung-mask run/masks",
        "eval --data run/ct --checkpoint net",
        "eval --data ct --checkpoint run",
        "eval --data ct --checkpoint net --manifest run/list.csv",
        "predict ct run/ct --checkpoint net",
        "predict ct --checkpoint run/export",
        "predict ct --checkpoint net --lung-mask run/masks",
        "explain ct run/ct --checkpoint net",
        "explain ct --checkpoint run",
        "explain ct --checkpoint net --masks run/masks",
        "explain ct --checkpoint net --slices run/slices.json",
        "explain ct --checkpoint net --lung-mask run/masks",
        "audit --data run/ct",
        "audit --data ct --manifest run/list.csv",
    ],
)
def test_overwrite_never_takes_what_a_command_reads(call, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prepare_out("run", {})
    files = ("ct/CP/a.npy", "masks/CP/a.npy", "list.csv", "slices.json", "export/config.json")
    places = [Path("run", file) for file in files] + [Path("ct/CP/a.npy"), Path("net/config.json")]
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert call(*command.split(), "--out", "run", "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run: --overwrite would delete run" in line
    assert all(path.exists() for path in places)


def test_no_option_is_upset_by_a_value(tmp_path):
    check_options("nlran", tmp_path)
