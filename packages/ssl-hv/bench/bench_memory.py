"""Peak memory of ssl-hv-embed with few and with ten times as many words.

``python -m pytest packages/ssl-hv/bench/bench_memory.py -s --device cpu``. Few is a batch. Numbers
are only printed; memory is many / few.
"""

from __future__ import annotations

import torch
from papercommons.testing.drawn_words import write_words
from papercommons.testing.memory import peak_resident
from ssl_hv.embedding import BATCH
from ssl_hv.encoders import create_encoder
from ssl_hv.saved import save_encoder

FEW, MANY = BATCH, 10 * BATCH


def test_many_words(tmp_path, record):
    torch.manual_seed(0)
    options = {"width": 4}
    encoder = create_encoder("resnet-layout", **options)
    checkpoint = save_encoder(encoder, tmp_path / "encoder", name="resnet-layout", options=options)
    few, many = (
        peak_resident(
            "ssl-hv-embed",
            write_words(tmp_path / str(count), range(32), count // 32),
            *("--checkpoint", checkpoint, "--out", tmp_path / f"{count}.npz"),
            *("--accelerator", "cpu"),
        )
        for count in (FEW, MANY)
    )
    record(
        measured="peak memory of ssl-hv-embed",
        size=f"{FEW:,} and {MANY:,} words",
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
