"""Peak memory of vlm-hv-predict with few and with ten times as many pairs.

``python -m pytest packages/vlm-hv/bench/bench_memory.py -s --device cpu``. Pictures are shown large
enough that keeping them would show. Numbers are only printed; memory is many / few.
"""

from __future__ import annotations

import csv

from papercommons.testing.drawn_words import write_words
from papercommons.testing.memory import peak_resident
from vlm_hv.tiny import tiny_paligemma

FEW, MANY = 8, 80


def test_many_pairs(tmp_path, record):
    checkpoint = tmp_path / "model"
    for part in tiny_paligemma(size=32, patch_size=16, width=16, layers=1):
        part.save_pretrained(checkpoint)
    words = write_words(tmp_path / "words", range(2 * MANY // 8), 8)
    names = [path.name for path in sorted(words.rglob("*.png"))]
    for count in (FEW, MANY):
        with (tmp_path / f"{count}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["known", "questioned"])
            table.writerows(zip(names[:count], names[count : 2 * count], strict=True))
    few, many = (
        peak_resident(
            "vlm-hv-predict",
            *("--data", words, "--pairs", tmp_path / f"{count}.csv", "--model", checkpoint),
            *("--out", tmp_path / str(count), "--accelerator", "cpu", "--mode", "logprob"),
        )
        for count in (FEW, MANY)
    )
    record(
        measured="peak memory of vlm-hv-predict",
        size=f"{FEW} and {MANY} pairs",
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
