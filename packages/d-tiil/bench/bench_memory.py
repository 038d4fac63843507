"""Peak memory of d-tiil-predict with few and with ten times as many pairs.

``python -m pytest packages/d-tiil/bench/bench_memory.py -s --device cpu``. Pictures are large
enough that keeping them would show. Numbers are only printed; memory is many / few.
"""

from __future__ import annotations

import json

import numpy as np
from d_tiil.settings import (
    AlignmentSettings,
    EditSettings,
    LocateSettings,
    MapSettings,
    write_settings,
)
from d_tiil.tiny import make_tiny
from papercommons.testing.memory import peak_resident
from PIL import Image

FEW, MANY = 4, 40
CAPTION = "a red circle left of a blue square on a black background"
QUICK = LocateSettings(
    alignment=AlignmentSettings(steps=1, batch=1, patience=0),
    maps=MapSettings(draws=1, steps=2, blur=0.0),
    edit=EditSettings(steps=1),
    pairs=2,
    max_rows=4,
)


def test_many_pairs(tmp_path, record):
    model = tmp_path / "model"
    make_tiny(
        CAPTION.split(), max_length=16, channels=(8, 8, 8), vae_channels=(8, 8)
    ).save_pretrained(model)
    write_settings(model, QUICK)
    lines = []
    for number in range(MANY):
        coarse = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(coarse).resize((512, 512)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"id": str(number), "image": f"{number}.png", "caption": CAPTION}))
    for count in (FEW, MANY):
        (tmp_path / f"{count}.jsonl").write_text("\n".join(lines[:count]))
    few, many = (
        peak_resident(
            "d-tiil-predict",
            *("--model", model, "--data", tmp_path / f"{count}.jsonl", "--resize"),
            *("--out", tmp_path / str(count), "--accelerator", "cpu"),
        )
        for count in (FEW, MANY)
    )
    record(
        measured="peak memory of d-tiil-predict",
        size=f"{FEW} and {MANY} pairs",
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
