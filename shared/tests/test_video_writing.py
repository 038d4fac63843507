from __future__ import annotations

import numpy as np
import pytest
from papercommons.errors import DataError
from papercommons.video.clips import read_clip
from papercommons.video.writing import write_clip

av = pytest.importorskip("av", reason="needs av")

BLACK = np.zeros((4, 32, 48), np.uint8)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "at least one"),
        (np.zeros((2, 31, 32, 3), np.uint8), "even H and W"),
        (np.zeros((2, 32, 32, 4), np.uint8), "uint8"),
        (np.zeros((2, 32, 32, 3), np.float32), "uint8"),
        ([np.zeros((32, 32), np.uint8), np.zeros((32, 34), np.uint8)], "one shape"),
    ],
)
def test_frames_that_cannot_be_written(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        write_clip(tmp_path / "v.mp4", frames)
    assert list(tmp_path.iterdir()) == []  # whole or not at all


def test_writing_refuses(tmp_path):
    with pytest.raises(ValueError, match="path must end in"):
        write_clip(tmp_path / "v.avi", BLACK[:2])
    with pytest.raises(ValueError, match="waveform must be float"):
        write_clip(tmp_path / "v.mp4", BLACK[:2], waveform=np.zeros(9, np.int16))
    with pytest.raises(ValueError, match=r"need fps >= 0\.01"):
        write_clip(tmp_path / "v.mp4", BLACK[:2], fps=0)
    with pytest.raises(DataError, match="cannot be written"):
        write_clip(tmp_path / "v.mp4", BLACK[:2], waveform=np.zeros(99), sample_rate=12_345)
    assert list(tmp_path.iterdir()) == []
    write_clip(tmp_path / "v.mp4", BLACK[:2])
    with pytest.raises(DataError, match="exists"):
        write_clip(tmp_path / "v.mp4", BLACK)
    write_clip(tmp_path / "v.mp4", BLACK, overwrite=True)
    assert read_clip(tmp_path / "v.mp4", sample_rate=None).facts.decoded_frames == 4
