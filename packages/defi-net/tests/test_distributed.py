"""Judging and training in two processes give what one process gives."""

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
        "ignore:You defined a `validation_step`",
        "ignore:.*does not have many workers",
        "ignore:The number of training batches",
        "ignore:The `srun` command is available",
    ),
]


def test_two_processes_judge_as_one(tmp_path, monkeypatch):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*launch, str(HERE / "ddp_fit.py"), str(tmp_path / "two.pt")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    monkeypatch.syspath_prepend(HERE)
    from ddp_fit import judge

    two = torch.load(tmp_path / "two.pt", weights_only=True)
    assert two == pytest.approx(judge(), rel=1e-5, abs=1e-6)


def test_the_command_in_two_processes_trains_as_in_one(forged, call, tmp_path):
    recipe = ("--data", forged, "--preset", "quick", "--width", 4, "--size", 32, "--epochs", 1)
    recipe += ("--batch-size", 1, "--lr", 0.001)  # batch norm sees one photograph in both
    one = (*recipe, "--trainer.accumulate_grad_batches", 2, "--out", tmp_path / "one")
    assert call("train", *one) == 0
    two = (*recipe, "--out", tmp_path / "two", "--json")
    said = run_in_two("defi_net.cli:main_train", *two, folder=tmp_path, launcher="lightning")
    assert json.loads(said)["metrics"]["photographs"] == {"train": 20, "val": 8, "test": 12}
    ours, theirs = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("one", "two")
    )
    assert ours["global_step"] == theirs["global_step"] == 10
    for name, value in ours["state_dict"].items():
        if "running" not in name and "num_batches" not in name:  # each process has its own
            close = {"rtol": 1e-4, "atol": 1e-5}
            torch.testing.assert_close(theirs["state_dict"][name], value, msg=name, **close)
    with (tmp_path / "two/items.csv").open() as file:
        assert len(file.readlines()) == 13  # judged once, by the first
