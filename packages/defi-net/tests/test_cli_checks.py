from pathlib import Path

import pytest
from papercommons.files import prepare_out
from papercommons.testing.hostile import check_options


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    "command",
    [
        "synth --images x",
        "train --data x",
        "eval --data x --checkpoint x",
        "predict x --checkpoint x",
        "compare x x",
        "demo --checkpoint x",
    ],
)
def test_every_seed_is_checked(call, command, seed, capsys):
    verb = command.partition(" ")[0]
    assert call(*command.split(), "--seed", seed) == 2
    said = capsys.readouterr().err
    assert said == f"defi-net-{verb}: error: --seed must be in [0, 2^32), got {seed}\n"


@pytest.mark.parametrize(
    "command",
    [
        "synth --images run/a.png",
        "synth --images a.png --masks file --mask-folder run/masks",
        "synth --images a.png --engines diffusers:run/model",
        "train --data run/set",
        "train --data set --val run/set",
        "train --data set --test run/set",
        "eval --data run/set --checkpoint net",
        "eval --data set --checkpoint run",
        "eval --data set --checkpoint run/published.pth",
        "predict a.png run/a.png --checkpoint net",
        "predict a.png --checkpoint run",
        "compare net/items.csv run/items.csv",
        "export --checkpoint run",
    ],
)
def test_overwrite_never_takes_what_a_command_reads(call, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prepare_out("run", {})
    files = ("a.png", "masks/a.png", "model/model_index.json", "set/images/a.png", "items.csv")
    files = [f"run/{name}" for name in (*files, "published.pth", "export/config.json")]
    files += ["a.png", "set/images/a.png", "net/items.csv", "net/config.json"]
    for path in map(Path, files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"_class_name": "StableDiffusionInpaintPipeline"}')
    assert call(*command.split(), "--out", "run", "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run: --overwrite would delete run" in line
    assert all(Path(file).exists() for file in files)


def test_no_option_is_upset_by_a_value(tmp_path):
    check_options("defi-net", tmp_path)
