import shutil
from pathlib import Path

import pytest
from papercommons.files import prepare_out
from papercommons.testing.hostile import check_options
from vlm_hv import prompts

MODEL = "--backend openai --base-url http://127.0.0.1:9/v1 --model m"


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    "command",
    [
        "predict --data x --model x",
        "eval x",
        "train --data x",
        "pairs --data x",
        "compare x --model x",
        "baseline --data x",
    ],
)
def test_every_seed_is_checked(call, command, seed, capsys):
    verb = command.partition(" ")[0]
    assert call(*command.split(), "--seed", seed) == 2
    said = capsys.readouterr().err
    assert said == f"vlm-hv-{verb}: error: --seed must be in [0, 2^32), got {seed}\n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Inputs, and an earlier run that holds some more."""
    monkeypatch.chdir(tmp_path)
    prepare_out("run", {})
    prompt = Path("run/own.yaml")
    shutil.copy(Path(prompts.__file__).with_name("paligemma_v1.yaml"), prompt)
    files = ("words/w0/a.png", "pairs.csv", "model/config.json", "predictions.jsonl", "answers/x")
    places = [Path("run", name) for name in files]
    places += map(Path, ("words/w0/a.png", "words/test.csv", "predictions.jsonl", "a.png"))
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [*places, prompt]


@pytest.mark.parametrize(
    "command",
    [
        f"predict --data run/words {MODEL}",
        "predict --data words --model run/model",
        f"predict --data words --pairs run/pairs.csv {MODEL}",
        f"predict --data words --prompt run/own.yaml {MODEL}",
        f"predict --data words --cache run/answers {MODEL}",
        "eval predictions.jsonl run",
        "eval predictions.jsonl --calibration run/predictions.jsonl",
        "train --data run/words --tiny",
        "train --data words --model run/model",
        "train --data words --tiny --pairs run/pairs.csv",
        f"compare a.png run/words/w0/a.png {MODEL}",
        "compare a.png a.png --model run/model",
        f"compare a.png a.png --prompt run/own.yaml {MODEL}",
        f"compare a.png a.png --cache run/answers {MODEL}",
        "baseline --data run/words",
        "baseline --data words --pairs run/pairs.csv",
        "report run --data words",
        "report predictions.jsonl --data run/words",
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
    check_options("vlm-hv", tmp_path)
