"""Losses, gradients and the DINO centre against lightly 1.5.26 (shared/parity/ssl-hv)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ssl_hv.objectives.barlow_twins import barlow_twins_loss
from ssl_hv.objectives.dino import dino_loss, moved_center
from ssl_hv.objectives.moco import info_nce_loss
from ssl_hv.objectives.simclr import nt_xent_loss
from ssl_hv.objectives.simsiam import negative_cosine
from ssl_hv.objectives.vicreg import covariance_term, variance_term, vicreg_loss, vicreg_terms

with np.load(Path(__file__).parent / "data/ssl_losses.npz") as stored:
    VECTORS = {name: torch.from_numpy(stored[name]) for name in stored.files}

LOSSES = {
    "vicreg": vicreg_loss,
    "barlow": barlow_twins_loss,
    "ntxent_t05": nt_xent_loss,
    "ntxent_t01": lambda za, zb: nt_xent_loss(za, zb, temperature=0.1),
    "negcos": negative_cosine,
    "moco_bank_t01": lambda za, zb: info_nce_loss(za, zb, VECTORS["bank"].to(za.device)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(name, device):
    za = VECTORS["za"].to(device, copy=True).requires_grad_()
    zb = VECTORS["zb"].to(device)
    loss = LOSSES[name](za, zb)
    loss.backward()
    assert loss.item() == pytest.approx(VECTORS[name].item(), rel=1e-5)
    torch.testing.assert_close(za.grad.cpu(), VECTORS[f"{name}_grad_za"], rtol=0, atol=1e-6)


def test_terms_of_vicreg():
    za, zb = VECTORS["za"], VECTORS["zb"]
    found = [
        vicreg_terms(za, zb).invariance,
        variance_term(za),
        variance_term(zb),
        covariance_term(za),
        covariance_term(zb),
    ]
    names = ("vicreg_inv", "vicreg_var_a", "vicreg_var_b", "vicreg_cov_a", "vicreg_cov_b")
    for value, name in zip(found, names, strict=True):
        assert value.item() == pytest.approx(VECTORS[name].item(), rel=1e-5)


def test_dino_and_its_center():
    teacher, student = VECTORS["dino_teacher"], VECTORS["dino_student"]
    center = torch.zeros(teacher.shape[2])
    assert dino_loss(teacher, student, center).item() == pytest.approx(
        VECTORS["dino_ep0"].item(), rel=1e-5
    )
    center = moved_center(center, teacher)
    torch.testing.assert_close(center, VECTORS["dino_center_after"].flatten(), rtol=0, atol=1e-6)
    assert dino_loss(teacher, student, center).item() == pytest.approx(
        VECTORS["dino_ep0_second_call"].item(), rel=1e-5
    )
