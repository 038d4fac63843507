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
        "ignore:.*does not have many workers", "ignore:The number of training batches"
    ),
]


def test_two_processes_find_what_one_does(tmp_path, monkeypatch):
    out = tmp_path / "found.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ran = subprocess.run(
        [*launch, str(HERE / "ddp_fit.py"), str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    two = torch.load(out, weights_only=True)
    monkeypatch.syspath_prepend(HERE)
    from ddp_fit import run

    found, _ = run()
    assert set(found) == set(two["found"])
    for name, value in found.items():  # all clips once, whichever process saw them
        assert two["found"][name] == pytest.approx(value, abs=1e-6), name
    first, second = two["weights"]
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
