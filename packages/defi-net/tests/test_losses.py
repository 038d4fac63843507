from __future__ import annotations

import numpy as np
import pytest
import torch
from defi_net.edges import edge_label
from defi_net.losses import boundary_loss, boundary_weights, structure_loss
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

LOSSES = {"structure": structure_loss, "boundary": boundary_loss}


def blobs(seed: int = 0, count: int = 3) -> torch.Tensor:
    noise = torch.randn(count, 1, 24, 20, generator=torch.Generator().manual_seed(seed))
    return (F.avg_pool2d(noise, 5, stride=1, padding=2) > 0).float()


def test_weights_are_those_of_the_published_code(parity):
    vectors = parity("losses")
    if "weight_map" not in vectors:
        pytest.skip("the map is among the larger fixtures only")
    torch.testing.assert_close(
        boundary_weights(vectors["masks"]), vectors["weight_map"], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("part", ["all", "blobs"])
@pytest.mark.parametrize("bce", ["official", "weighted"])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_those_of_the_published_code(parity, name, bce, part):
    vectors = parity("losses")
    key = f"{name}_{'code' if bce == 'official' else bce}_{part}"
    items = slice(None) if part == "all" else slice(4, None)
    logits = vectors["logits"][items].clone().requires_grad_()
    loss = LOSSES[name](logits, vectors["masks"][items], bce=bce)
    torch.testing.assert_close(loss.detach(), vectors[key], atol=1e-6, rtol=1e-6)
    if f"{key}_grad" in vectors:
        (grad,) = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(grad, vectors[f"{key}_grad"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("bce", ["official", "weighted"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name, bce):
    logits = torch.randn(2, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    masks = blobs(1, 2)[..., 3:8, 3:7]
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, masks, bce=bce), logits)


@pytest.mark.parametrize("bce", ["official", "weighted"])
def test_a_perfect_sure_map_costs_nothing_and_its_complement_much(bce):
    masks = torch.cat([blobs(), torch.zeros(1, 1, 24, 20), torch.ones(1, 1, 24, 20)])
    sure = 60 * (2 * masks - 1)
    assert structure_loss(sure, masks, bce=bce) < 1e-6
    assert boundary_loss(sure, masks, bce=bce) < 1e-6
    assert structure_loss(-sure, masks, bce=bce) > 60


@given(st.integers(0, 10**6))
def test_the_order_of_images_is_nothing(seed):
    masks, order = blobs(seed, 4), [2, 0, 3, 1]
    logits = torch.randn(masks.shape, generator=torch.Generator().manual_seed(seed))
    for loss in LOSSES.values():
        for bce in ("official", "weighted"):
            torch.testing.assert_close(
                loss(logits[order], masks[order], bce=bce), loss(logits, masks, bce=bce)
            )


def test_weights_rise_at_the_boundary():
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 64:] = 1
    weights = boundary_weights(mask)
    assert weights[0, 0, 64, 30] == 1  # far from it
    assert weights[0, 0, 64, 63] == pytest.approx(1 + 5 * 15 / 31, rel=1e-5)
    assert weights.max() <= 6
    assert (boundary_weights(torch.ones(1, 1, 40, 40))[0, 0, 0, 0]) > 4  # outside counts as 0
    assert torch.equal(boundary_weights(mask, gain=0.0), torch.ones_like(mask))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_float32(dtype):
    masks = blobs()
    logits = (200 * torch.randn(masks.shape)).to(dtype)
    for loss in LOSSES.values():
        for bce in ("official", "weighted"):
            half = loss(logits, masks, bce=bce)
            assert half.dtype == torch.float32
            torch.testing.assert_close(half, loss(logits.float(), masks, bce=bce))
            with torch.autocast("cpu", torch.bfloat16):
                torch.testing.assert_close(loss(logits, masks, bce=bce), half)


def test_edges_of_masks_are_a_truth_for_the_boundary_loss():
    masks = blobs()
    edges = edge_label(masks)
    assert 0 < boundary_loss(torch.zeros_like(masks), edges) == pytest.approx(np.log(2))


@pytest.mark.parametrize("loss", LOSSES.values())
def test_bad_arguments(loss):
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\) and \(2, 8, 8\)"):
        loss(torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8))
    with pytest.raises(ValueError, match="bce must be official or weighted, got plain"):
        loss(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8), bce="plain")
