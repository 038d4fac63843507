from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
