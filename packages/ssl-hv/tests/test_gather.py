from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from papercommons.cli import RunOptions
from ssl_hv.gather import gather

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def two_processes(words, tmp_path_factory):
    """What two processes find, by ddp_fit.py and ddp_losses.py; started once."""
    out = tmp_path_factory.mktemp("ddp") / "two.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(HERE / "ddp_fit.py"), str(words), str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(out, weights_only=True)


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def test_one_process_keeps_its_rows():
    z = torch.randn(3, 2, requires_grad=True)
    assert gather(z) is z


@pytest.mark.ddp
def test_two_processes_learn_as_one(two_processes):
    from ddp_losses import two_steps

    two, one = two_processes["losses"], two_steps()
    assert two.keys() == one.keys()
    for name, values in one.items():
        assert all((value != 0).any() for key, value in values.items() if "weight" in key), name
        torch.testing.assert_close(two[name], values, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.ddp
def test_two_processes_train_a_verifier_as_one(words, two_processes):
    from ddp_fit import train

    one = train(str(words), batch_size=16, run=RunOptions(accelerator="cpu"))
    two = two_processes["fit"]
    assert one["moved"].abs().max() > 1e-3
    torch.testing.assert_close(two["moved"], one["moved"], rtol=1e-2, atol=1e-5)
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert two["logged"] == pytest.approx(one["logged"], rel=1e-3)
    assert all(math.isfinite(value) for value in one["logged"].values())
