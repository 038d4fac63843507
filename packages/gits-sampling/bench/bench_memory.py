"""Peak memory of gits-sampling-sample with few and with ten times as many samples.

``python -m pytest packages/gits-sampling/bench/bench_memory.py -s --device cpu``. Samples are large
enough that keeping them would show. Numbers are only printed; memory is many / few.
"""

from __future__ import annotations

import pytest
import torch
from gits_sampling.lightning import GITSModule
from gits_sampling.saved import save_network
from papercommons.testing.memory import peak_resident

FEW, MANY = 64, 640
SMALL = {"width": 8, "multipliers": [1, 1], "blocks": 1, "attention": []}


@pytest.mark.parametrize("save", ["png", "npz"])
def test_many_samples(save, tmp_path, record):
    torch.manual_seed(0)
    module = GITSModule(shape=(3, 128, 128), network_options=SMALL)
    model = save_network(module, tmp_path / "network")
    few, many = (
        peak_resident(
            "gits-sampling-sample",
            *("--model", model, "--sigmas", "[80, 0.002]", "--solver", "euler"),
            *("--seeds", f"0-{count - 1}", "--save", save, "--batch-size", 16),
            *("--out", tmp_path / str(count), "--accelerator", "cpu"),
        )
        for count in (FEW, MANY)
    )
    record(
        measured=f"peak memory of gits-sampling-sample --save {save}",
        size=f"{FEW} and {MANY} samples of 3 x 128 x 128",
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
