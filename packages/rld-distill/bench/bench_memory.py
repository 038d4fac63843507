"""Peak memory of rld-distill-predict with few and with ten times as many images.

``python -m pytest packages/rld-distill/bench/bench_memory.py -s --device cpu``. Images are large
enough that keeping them would show. Numbers are only printed; memory is many / few.
"""

from __future__ import annotations

import numpy as np
import torch
from papercommons.checkpoint import save_model
from papercommons.testing.memory import peak_resident
from PIL import Image
from rld_distill.zoo import create_model

FEW, MANY = 40, 400
CLASSES = 100


def test_many_images(tmp_path, record):
    torch.manual_seed(0)
    checkpoint = tmp_path / "network"
    about = {"model": "resnet8", "num_classes": CLASSES, "size": 32, "package": "rld-distill"}
    about |= {"classes": [f"class {k}" for k in range(CLASSES)], "mean": [0.5] * 3}
    save_model(create_model("resnet8", CLASSES), checkpoint, about | {"std": [0.25] * 3})
    images = [tmp_path / f"{number}.png" for number in range(MANY)]
    for number, path in enumerate(images):
        coarse = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(coarse).resize((256, 256)).save(path)
    few, many = (
        peak_resident(
            "rld-distill-predict",
            *images[:count],
            *("--checkpoint", checkpoint, "--out", tmp_path / str(count), "--accelerator", "cpu"),
            *("--batch-size", 16, "--num-workers", 0),
        )
        for count in (FEW, MANY)
    )
    record(
        measured="peak memory of rld-distill-predict",
        size=f"{FEW} and {MANY} images",
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
