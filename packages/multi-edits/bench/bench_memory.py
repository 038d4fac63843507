"""Peak memory of multi-edits-predict with few and with ten times as many records.

``python -m pytest packages/multi-edits/bench/bench_memory.py -s --device cpu``. Attention
maps and latents are large enough that keeping them would show. Numbers are only printed; memory is
many / few.
"""

from __future__ import annotations

import json

import numpy as np
from multi_edits.tiny import make_tiny
from papercommons.testing.memory import peak_resident
from PIL import Image

FEW, MANY = 6, 60
SOURCE = "a red circle left of a blue square on a black background"
TARGET = "a green circle left of a blue square on a black background"


def test_many_records(tmp_path, record):
    model = tmp_path / "model"
    words = [*SOURCE.split(), "green"]
    make_tiny(words, max_length=16, channels=(8, 8, 8), vae_channels=(8, 8)).save_pretrained(model)
    records = []
    for number in range(MANY):
        coarse = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(coarse).resize((128, 128)).save(tmp_path / f"{number:03d}.png")
        asked = {"source_prompt": SOURCE, "target_prompt": TARGET, "mask_size": [128, 128]}
        named = {"id": f"{number:03d}", "image_path": f"{number:03d}.png", "mask": [1024, 4096]}
        records.append(named | asked)
    for count in (FEW, MANY):
        (tmp_path / f"{count}.json").write_text(json.dumps(records[:count]))
    few, many = (
        peak_resident(
            "multi-edits-predict",
            *("--model", model, "--data", tmp_path / f"{count}.json"),
            *("--steps", 2, "--group-steps", 2, "--mode", "single"),
            *("--out", tmp_path / str(count), "--accelerator", "cpu"),
        )
        for count in (FEW, MANY)
    )
    record(
        measured="peak memory of multi-edits-predict",
        size=f"{FEW} and {MANY} records",
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
