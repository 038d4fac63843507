"""Peak memory of cmdfd-predict with ten times as many clips, and with a clip ten times as long.

``python -m pytest packages/cmdfd/bench/bench_memory.py -s --device cpu``; needs cmdfd[video]. Clips
are large enough that keeping them would show. Numbers are only printed; memory is many / few.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cmdfd.model import CMDFDNet
from cmdfd.prepared import crop_settings
from cmdfd.saved import save_network
from papercommons.testing.memory import peak_resident
from papercommons.video.writing import write_clip

SIZE = 96
TINY = {"dim": 32, "visual_width": 4, "audio_layers": (1, 1, 1, 1), "tcn_layers": 1, "heads": 4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("network")
    return save_network(
        CMDFDNet(**TINY), folder, size=SIZE, crop=crop_settings("none", SIZE, swapped=False)
    )


def write_talk(path, seconds, seed):
    """Write a clip whose picture and loudness change; of no two seeds the same."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    frames = (np.roll(scene, shift, axis=1) // 2 + shift % 64 for shift in range(25 * seconds))
    waveform = 0.1 * rng.standard_normal(16_000 * seconds)
    write_clip(path, frames, waveform=waveform.astype(np.float32))
    return path


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("4 and 40 clips of 4 s", [(4, 4), (40, 4)]),
        ("a clip of 30 and of 300 s", [(1, 30), (1, 300)]),
    ],
    ids=["clips", "seconds"],
)
def test_growth(name, runs, checkpoint, tmp_path, record):
    peaks = []
    for count, seconds in runs:
        folder = tmp_path / f"{count} of {seconds}"
        folder.mkdir()
        clips = [write_talk(folder / f"{k}.mp4", seconds, k) for k in range(count)]
        place = ("--checkpoint", checkpoint, "--out", folder / "out", "--accelerator", "cpu")
        peaks.append(peak_resident("cmdfd-predict", *clips, *place))
    few, many = peaks
    record(
        measured="peak memory of cmdfd-predict",
        size=name,
        ours=f"{few:.0f} and {many:.0f} MiB",
        memory=round(many / few, 3),
    )
