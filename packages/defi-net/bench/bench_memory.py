"""Peak memory of defi-net-predict with few and with ten times as many photographs.

``python -m pytest packages/defi-net/bench/bench_memory.py -s --device cpu``. Photographs are large
enough that keeping them would show. Numbers are only printed; memory is many / few.
"""

from __future__ import annotations

import numpy as np
import torch
from defi_net.model import DeFINet
from papercommons.testing.memory import peak_resident
from PIL import Image

FEW, MANY = 4, 40
SMALL = {"width": 4, "backbone_options": {"channels": (2, 4, 6, 8), "planes": 4, "stem_width": 8}}


def test_many_photographs(tmp_path, record):
    torch.manual_seed(0)
    checkpoint = DeFINet(**SMALL).save_pretrained(tmp_path / "network", size=64)
    photos = [tmp_path / f"{number}.png" for number in range(MANY)]
    for number, path in enumerate(photos):
        coarse = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(coarse).resize((384, 384)).save(path)
    few, many = (
        peak_resident(
            "defi-net-predict",
            *photos[:count],
            *("--checkpoint", checkpoint, "--out", tmp_path / str(count), "--accelerator", "cpu"),
        )
        for count in (FEW, MANY)
    )
    record(
        measured="peak memory of defi-net-predict",
        size=f"{FEW} and {MANY} photographs",
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
