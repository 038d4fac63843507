from __future__ import annotations

import numpy as np
import pytest
import torch
from defi_net.edges import edge_band, edge_label
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def test_edges_are_those_of_the_published_script(parity):
    vectors = parity("edges")
    assert torch.equal(255 * edge_label(vectors["masks"] > 127.5), vectors["edges"].float())


@pytest.mark.parametrize("kernel", [3, 7])
def test_bands_are_those_of_the_other_generator(parity, kernel):
    vectors = parity("edges")
    band = edge_band(vectors["masks"] > 127.5, kernel=kernel)
    assert torch.equal(band, vectors[f"band_cross_k{kernel}"].float())


@given(MASKS)
def test_edge_is_the_mask_without_its_erosion(mask):
    inner = ndimage.binary_erosion(mask, np.ones((5, 5)), border_value=1)
    assert np.array_equal(edge_label(torch.from_numpy(mask)).numpy(), mask & ~inner)


def test_known_shapes():
    assert not edge_label(torch.ones(2, 1, 9, 9)).any()
    assert not edge_label(torch.zeros(2, 1, 9, 9)).any()
    square = torch.zeros(11, 11)
    square[3:8, 3:8] = 1
    rim = square.clone()
    rim[5, 5] = 0
    assert torch.equal(edge_label(square), rim)
    thin = torch.zeros(11, 11)
    thin[:, 2:6] = 1
    assert torch.equal(edge_label(thin), thin)


def test_soft_masks_are_cut_at_one_half():
    soft = torch.tensor([[0.49, 0.5], [0.0, 1.0]])
    assert torch.equal(edge_label(soft), edge_label(soft >= 0.5))


@pytest.mark.parametrize("find", [edge_label, edge_band])
def test_bad_arguments(find):
    with pytest.raises(ValueError, match="divide 8-bit masks by 255"):
        find(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="odd and >= 3, got 4"):
        find(torch.zeros(8, 8), kernel=4)
