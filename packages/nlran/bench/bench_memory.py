"""Peak memory of nlran-predict with few and with ten times as many scans.

``python -m pytest packages/nlran/bench/bench_memory.py -s --device cpu``. Scans are large enough
that keeping them would show. Numbers are only printed; memory is many / few.
"""

from __future__ import annotations

import numpy as np
import torch
from nlran.networks import create_network
from nlran.preparation import Preparation
from nlran.saved import save_network
from papercommons.testing.memory import peak_resident

FEW, MANY = 3, 30


def test_many_scans(tmp_path, record):
    torch.manual_seed(0)
    checkpoint = save_network(
        create_network("nlran", 2, variant="tiny"),
        tmp_path / "network",
        model="nlran",
        options={"variant": "tiny"},
        classes=["normal", "ncp"],
        preparation=Preparation(size=(16, 32, 32)),
        data_hash="",
        device="cpu",
        made_by="a benchmark",
    )
    scans = [tmp_path / f"{number}.npy" for number in range(MANY)]
    for number, path in enumerate(scans):
        values = np.random.default_rng(number).integers(-1000, 400, (32, 96, 96))
        np.save(path, values.astype(np.int16))
    few, many = (
        peak_resident(
            "nlran-predict",
            *scans[:count],
            *("--checkpoint", checkpoint, "--out", tmp_path / str(count), "--accelerator", "cpu"),
            *("--overlay", "none", "--no-controls"),
        )
        for count in (FEW, MANY)
    )
    record(
        measured="peak memory of nlran-predict",
        size=f"{FEW} and {MANY} scans",
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
