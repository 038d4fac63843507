"""The paper's network on a large photograph: in tiles against in one pass, time and memory.

``python -m pytest packages/defi-net/bench/bench_tiling.py -s --device cpu`` (or cuda). Times and
memory are only printed; on the CPU the photograph is small.
"""

from __future__ import annotations

import numpy as np
import torch
from defi_net.localizer import Localizer
from defi_net.model import DeFINet
from papercommons.testing.timing import compare_speed, peak_memory

SIDE = {"cpu": 640, "cuda": 2048}


def test_tiles(device, record):
    torch.manual_seed(0)
    network = DeFINet()
    side = SIDE[device.type]
    photo = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    batch_size = 1 if device.type == "cpu" else 4
    tiles = Localizer(network, batch_size=batch_size, device=device)
    whole = Localizer(network, way="whole", device=device)
    assert tiles(photo).shape == whole(photo).shape
    speed = compare_speed(lambda: tiles(photo), lambda: whole(photo), rounds=1)
    memory = [peak_memory(lambda w=way: w(photo), device) / 2**20 for way in (tiles, whole)]
    per_megapixel = 1e6 / side**2
    record(
        measured="tiles of 352 with overlap 64, against one pass",
        size=f"{side} x {side}",
        ours=f"{per_megapixel * speed.ours_s:.2f} s per megapixel, {memory[0]:,.0f} MiB",
        plain=f"{per_megapixel * speed.reference_s:.2f} s per megapixel, {memory[1]:,.0f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )
