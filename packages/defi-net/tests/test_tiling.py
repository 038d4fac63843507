from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from defi_net.tiling import _axis, predict_resized, predict_tiled
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def convolution(radius, channels=2, seed=0):
    """A network of one convolution, which sees `radius` pixels around each."""
    generator = torch.Generator().manual_seed(seed)
    side = 2 * radius + 1
    weight = torch.randn(channels, 3, side, side, generator=generator) / side

    def network(images):
        return F.conv2d(images, weight, padding=radius).sigmoid()

    return network


def strided(images):
    """Sees 8 x 8 cells in step with the photograph's corner: tiles must begin on them."""
    return F.interpolate(F.avg_pool2d(images.mean(1, keepdim=True), 8), scale_factor=8)


def whole(network, pixels, multiple=1):
    height, width, _ = pixels.shape
    more = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    image = torch.from_numpy(np.pad(pixels, more, mode="reflect")).permute(2, 0, 1)[None]
    return network(image.float() / 255)[0, :, :height, :width].numpy()


@given(
    height=st.integers(16, 130),
    width=st.integers(16, 130),
    tile=st.integers(2, 9).map(lambda n: 8 * n),
    overlap=st.integers(0, 56),
    radius=st.integers(0, 6),
)
def test_tiles_find_what_the_whole_finds(height, width, tile, overlap, radius):
    overlap = max(2 * radius, min(overlap, tile - 8))
    tile = max(tile, overlap + 8 + -overlap % 8)
    network = convolution(radius)
    pixels = photo(height, width)
    found = predict_tiled(
        network, pixels, tile=tile, overlap=overlap, margin=radius, multiple=1, batch_size=3
    )
    np.testing.assert_allclose(found, whole(network, pixels), atol=2e-6)


@pytest.mark.parametrize("overlap", [0, 5, 12, 31])
def test_tiles_lie_on_the_grid_of_a_strided_network(overlap):
    pixels = photo(123, 77)
    found = predict_tiled(strided, pixels, tile=40, overlap=overlap)
    np.testing.assert_allclose(found, whole(strided, pixels, multiple=8), atol=1e-6)


def test_the_margin_is_a_quarter_of_the_overlap():
    pixels, network = photo(48, 144), convolution(4)
    expected = whole(network, pixels)
    found = predict_tiled(network, pixels, tile=48, overlap=16)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    found = predict_tiled(network, pixels, tile=48, overlap=16, margin=2)
    assert np.abs(found - expected).max() > 1e-3


@given(
    size=st.integers(16, 400),
    tile=st.integers(2, 12).map(lambda n: 8 * n),
    overlap=st.integers(0, 88),
    share=st.floats(0, 0.5),
)
def test_weights_sum_to_one_and_tiles_overlap_enough(size, tile, overlap, share):
    overlap = min(overlap, tile - 8)
    axis = _axis(size, tile, overlap, int(share * overlap), 8)
    total = np.zeros(axis.padded)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        total[start : start + axis.tile] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (axis.weights >= -1e-7).all()
    assert axis.padded - size in range(8)
    assert all(start % 8 == 0 for start in axis.starts)
    assert axis.starts[-1] + axis.tile == axis.padded
    for before, after in zip(axis.starts, axis.starts[1:], strict=False):
        assert overlap <= before + axis.tile - after < axis.tile


def test_seams_are_smooth():
    """A network that answers differently in every tile leaves no step."""
    answers = iter(np.linspace(0, 1, 9))

    def moody(images):
        return torch.stack([torch.full((1, *x.shape[1:]), float(next(answers))) for x in images])

    found = predict_tiled(moody, photo(140, 140), tile=64, overlap=24, margin=0)[0]
    assert np.abs(np.diff(found, axis=1)).max() < 0.02
    assert np.abs(np.diff(found, axis=0)).max() < 0.05
    assert found[0, 0] == 0
    assert found[-1, -1] == 1


def test_bytes_and_given_arrays(tmp_path):
    pixels, network = photo(70, 91), convolution(1)
    exact = predict_tiled(network, pixels, tile=32, overlap=8)
    levels = predict_tiled(network, pixels, tile=32, overlap=8, dtype=np.uint8)
    np.testing.assert_array_equal(levels, np.rint(255 * exact))
    out = np.memmap(tmp_path / "maps", np.uint8, "w+", shape=(2, 70, 91))
    assert predict_tiled(network, pixels, tile=32, overlap=8, out=out) is out
    np.testing.assert_array_equal(out, levels)


class Strips:
    """A photograph that is made as it is read, and notes how much was read at once."""

    def __init__(self, height, width):
        self.shape, self.most, self.end = (height, width, 3), 0, 0

    def __getitem__(self, rows):
        assert rows.start <= self.end  # nothing is left out
        self.most, self.end = max(self.most, rows.stop - rows.start), rows.stop
        return np.full((rows.stop - rows.start, *self.shape[1:]), 51, np.uint8)


def test_a_photograph_is_read_in_bands():
    strips = Strips(2000, 100)
    found = predict_tiled(lambda x: x[:, :1], strips, tile=64, overlap=16, dtype=np.uint8)
    assert (strips.most, strips.end) == (64, 2000)
    assert (found == 51).all()


def test_the_network_gets_batches_in_inference_mode(device):
    sizes = []

    def network(images):
        assert images.device.type == device.type
        assert torch.is_inference(images)
        assert images.dtype == torch.float32
        assert 0 <= images.min() <= images.max() <= 1
        sizes.append(tuple(images.shape))
        return images[:, :1]

    predict_tiled(network, photo(32, 200), tile=64, overlap=0, batch_size=3, device=device)
    assert sizes == [(3, 3, 32, 64), (1, 3, 32, 64)]


def test_through_a_square():
    pixels = np.full((40, 60, 3), 102, np.uint8)
    found = predict_resized(lambda x: torch.logit(x[:, :2]), pixels, size=32)
    assert found.shape == (2, 40, 60)
    np.testing.assert_allclose(found, 0.4, atol=1e-6)
    ramp = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], 48, 0).repeat(3, 2)
    found = predict_resized(lambda x: 4 * x[:, :1] - 2, ramp, size=32)[0]
    assert (np.diff(found, axis=1) >= 0).all()
    assert found[0, 0] == pytest.approx(1 / (1 + np.exp(2)), abs=0.01)


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (photo(40, 40)[..., 0], {}, r"photo must be \(H, W, 3\), got \(40, 40\)"),
        (photo(40, 40), {"tile": 100}, "divisible by 8, got 100; try 96"),
        (photo(40, 40), {"tile": 8}, "tile must be >= 16 and divisible by 8, got 8; try 16"),
        (photo(40, 40), {"tile": 64, "overlap": 60}, "overlap must be 0 to 56 for tile 64"),
        (photo(40, 40), {"margin": 40}, "margin must be 0 to 32, half of overlap, got 40"),
        (photo(40, 40), {"batch_size": 0}, "batch_size must be >= 1"),
        (photo(40, 40), {"out": np.empty((40, 40))}, r"out must be \(1, 40, 40\)"),
    ],
)
def test_what_is_refused(pixels, options, message):
    with pytest.raises(ValueError, match=message):
        predict_tiled(lambda x: x[:, :1], pixels, **options)


def test_a_network_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"must give \(B, C, h, w\)"):
        predict_tiled(lambda x: x[:, :1, ::2], photo(40, 40))
    with pytest.raises(ValueError, match="size must be >= 16, got 8"):
        predict_resized(lambda x: x, photo(40, 40), size=8)


BIG = """
    import resource, sys
    import numpy as np
    import torch
    from defi_net.reading import read_photo
    from defi_net.tiling import predict_tiled
    from torch.nn import functional as F

    weight = torch.full((1, 3, 3, 3), 1 / 27)
    pixels = read_photo(sys.argv[1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = predict_tiled(
        lambda x: F.conv2d(x, weight, padding=1), pixels, tile=512, dtype=np.uint8
    )
    grey = pixels[4000:4010, 4000:4010].mean()
    assert abs(found[0, 4001:4009, 4001:4009].mean() - grey) < 3, (found[0, 4001, 4001], grey)
    print(found.shape, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_100_megapixels_take_less_than_4_gb(tmp_path):
    from PIL import Image

    square = Image.fromarray(photo(100, 100)).resize((10_000, 10_000))
    square.save(tmp_path / "large.jpg", quality=70)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BIG), str(tmp_path / "large.jpg")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr
    shape, reading, all_ = run.stdout.rsplit(maxsplit=2)
    assert shape == "(1, 10000, 10000)"
    print(f"{int(reading) / 2**20:.2f} GiB to read, {int(all_) / 2**20:.2f} GiB in all")
    assert int(all_) < 4 * 2**20
