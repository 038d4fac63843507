"""Four SGD steps with RLD, DKD and KD against the public implementation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rld_distill.baselines import dkd_loss, kd_loss
from rld_distill.losses import rld_loss
from rld_distill.zoo import create_model
from torch.nn import functional as F

STEPS = np.load(Path(__file__).parent / "data/train_steps.npz")  # all of the full file but images
NAMES = ("alpha", "beta", "tau", "tau_a", "warmup", "lr", "standardise", "num_classes", "seed")
HYPER = dict(zip(NAMES, STEPS["hyper"].tolist(), strict=True))


def images():
    shape = (*STEPS["targets"].shape, 3, 32, 32)
    return np.random.RandomState(int(HYPER["seed"])).standard_normal(shape).astype(np.float32)


def weighted_terms(method, student, teacher, target, epoch):
    ce = F.cross_entropy(student, target)
    alpha, beta, tau = HYPER["alpha"], HYPER["beta"], HYPER["tau"]
    if method == "kd":
        return 0.1 * ce, 0.9 * kd_loss(student, teacher, temperature=tau)
    if method == "dkd":
        distill = dkd_loss(student, teacher, target, alpha=alpha, beta=beta, temperature=tau)
    else:
        distill = rld_loss(
            student,
            teacher,
            target,
            alpha=alpha,
            beta=beta,
            temperature=tau,
            scd_temperature=HYPER["tau_a"],
            standardize=bool(HYPER["standardise"]),
        )
    return ce, min(epoch / HYPER["warmup"], 1.0) * distill


@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize("method", ["rld", "dkd", "kd"])
def test_four_steps_equal_the_reference(method, precision, fill_weights, device):
    dtype = torch.float64 if precision == "f64" else torch.float32
    networks = []
    for role, offset in (("student", 1000), ("teacher", 5000)):
        network = create_model(str(STEPS[role]), int(HYPER["num_classes"]))
        fill_weights(network, int(HYPER["seed"]) + offset)
        networks.append(network.to(device, dtype))  # the reference rounded its weights to float32
    student, teacher = networks[0].train(), networks[1].eval()
    sgd = torch.optim.SGD(student.parameters(), lr=HYPER["lr"], momentum=0.9, weight_decay=5e-4)
    batches = torch.from_numpy(images()).to(device, dtype)
    rows = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for x, y, epoch in zip(batches, STEPS["targets"], STEPS["epochs"], strict=True):
            with torch.no_grad():
                teacher_logits = teacher(x)
            target = torch.from_numpy(y).to(device)
            ce, distill = weighted_terms(method, student(x), teacher_logits, target, int(epoch))
            sgd.zero_grad()
            (ce + distill).backward()
            norm = torch.stack([p.grad.norm() for p in student.parameters()]).norm()
            rows.append([v.item() for v in (ce, distill, ce + distill, norm)])
            sgd.step()
        with torch.no_grad():
            logits = student.eval()(batches[0]).cpu().numpy()
    parameters = torch.stack([p.detach().norm() for p in student.parameters()]).norm()
    expected = {
        k: STEPS[f"{method}/{precision}/{k}"] for k in ("steps", "eval_logits", "param_norm")
    }
    tolerance = 1e-9 if precision == "f64" else 1e-3
    scale = np.abs(expected["eval_logits"]).max()
    np.testing.assert_allclose(rows, expected["steps"], rtol=tolerance)
    np.testing.assert_allclose(logits, expected["eval_logits"], rtol=0, atol=tolerance * scale)
    np.testing.assert_allclose(parameters.item(), expected["param_norm"], rtol=tolerance)


def test_made_images_are_those_of_the_full_file(shared_files):
    with np.load(shared_files / "parity/rld-distill/train_steps.npz") as full:
        np.testing.assert_array_equal(images(), full["images"])
        assert sorted(full) == sorted([*STEPS, "images"])
        for key in STEPS:
            np.testing.assert_array_equal(full[key], STEPS[key])
