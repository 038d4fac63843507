"""Peak memory of semforge-predict with few and with ten times as many pictures.

``python -m pytest packages/semforge/bench/bench_memory.py -s --device cpu``. Pictures are large
enough that keeping them would show. Numbers are only printed; memory is many / few.
"""

from __future__ import annotations

import numpy as np
import torch
from papercommons.testing.memory import peak_resident
from PIL import Image
from semforge.graph import LabelGraph
from semforge.model import SemForgeNet
from semforge.saved import save_network

FEW, MANY = 3, 30


def test_many_pictures(tmp_path, record):
    torch.manual_seed(0)
    graph = LabelGraph.soft_or("fake", {"age": ["eye", "skin"], "pose": ["eye"]}, name="own")
    net = SemForgeNet("tiny", graph, image_size=48)
    checkpoint = save_network(net, tmp_path / "network", crop={"crop": "none", "size": 48})
    pictures = [tmp_path / f"{number}.png" for number in range(MANY)]
    for number, path in enumerate(pictures):
        coarse = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(coarse).resize((768, 768)).save(path)
    few, many = (
        peak_resident(
            "semforge-predict",
            *pictures[:count],
            *("--checkpoint", checkpoint, "--out", tmp_path / str(count), "--accelerator", "cpu"),
            "--no-crop",
        )
        for count in (FEW, MANY)
    )
    record(
        measured="peak memory of semforge-predict",
        size=f"{FEW} and {MANY} pictures",
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
