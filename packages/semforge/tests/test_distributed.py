from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from papercommons.testing.processes import run_in_two

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.ddp,
    pytest.mark.filterwarnings(
        "ignore:.*does not have many workers",
        "ignore:The number of training batches",
        "ignore:You defined a `validation_step`",
    ),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes find, by ddp_fit.py; started once."""
    out = tmp_path_factory.mktemp("ddp") / "found.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*launch, str(HERE / "ddp_fit.py"), str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize("form", ["exact", "finite"])
def test_auto_lambda_in_two_processes(found, form, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    from ddp_fit import train

    alone = train(form, 0)
    for name, value in found[form]["same"].items():
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5)
    first, second = found[form]["own"]
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    weights = "auto_lambda.weights"
    assert not torch.equal(first[weights], alone[weights])


def test_the_command_in_two_processes_trains_as_in_one(drawn, call, tmp_path):
    recipe = ("--data", drawn, "--preset", "quick", "--size", 32, "--epochs", 1, "--lr", 0.001)
    recipe += ("--batch-size", 1, "--aug-prob", 0)  # batch norm sees one face in both
    one = (*recipe, "--trainer.accumulate_grad_batches", 2, "--out", tmp_path / "one")
    assert call("train", *one) == 0
    two = (*recipe, "--out", tmp_path / "two", "--json")
    said = run_in_two("semforge.cli:main_train", *two, folder=tmp_path, launcher="lightning")
    assert json.loads(said)["metrics"]["splits"] == {"train": 64, "val": 32, "test": 32}
    ours, theirs = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("one", "two")
    )
    assert ours["global_step"] == theirs["global_step"] == 32
    for name, value in ours["state_dict"].items():
        if "running" not in name and "num_batches" not in name:  # each process has its own
            close = {"rtol": 1e-4, "atol": 1e-5}
            torch.testing.assert_close(theirs["state_dict"][name], value, msg=name, **close)
    with (tmp_path / "two/items.csv").open() as file:
        assert len(file.readlines()) == 33  # judged once, by the first
