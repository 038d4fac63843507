"""What the eight joint-embedding objectives do, each alone and all alike."""

from __future__ import annotations

import copy

import pytest
import torch
from ssl_hv.objectives.barlow_twins import BarlowTwins
from ssl_hv.objectives.byol import BYOL
from ssl_hv.objectives.dino import DINO
from ssl_hv.objectives.fastsiam import FastSiam
from ssl_hv.objectives.joint_embedding import spread
from ssl_hv.objectives.moco import MoCo
from ssl_hv.objectives.momentum import cosine_schedule, momentum_copy, update_momentum
from ssl_hv.objectives.projection import DINOHead, projection_head
from ssl_hv.objectives.simclr import SimCLR
from ssl_hv.objectives.simsiam import SimSiam
from ssl_hv.objectives.vicreg import VICReg
from torch import nn
from torch.nn import functional as F


class Encoder(nn.Sequential):
    dim = 12

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 6, 3, 2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 12, 3, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


SMALL = {
    SimCLR: {"hidden_dim": 16, "projection_dim": 8},
    MoCo: {"hidden_dim": 16, "projection_dim": 8, "queue_size": 20, "splits": 3},
    BYOL: {"hidden_dim": 16, "projection_dim": 8},
    SimSiam: {"hidden_dim": 16, "projection_dim": 8, "prediction_hidden_dim": 4},
    FastSiam: {"hidden_dim": 16, "projection_dim": 8, "prediction_hidden_dim": 4},
    DINO: {"hidden_dim": 16, "bottleneck_dim": 8, "prototypes": 24},
    BarlowTwins: {"projection_dim": 16},
    VICReg: {"projection_dim": 16},
}
# the table of section 3.3 of the specification, for an encoder of 512
WIDTHS = {
    SimCLR: {"projector": [512, 512, 128]},
    MoCo: {"projector": [512, 512, 128]},
    BYOL: {"projector": [512, 1024, 256], "predictor": [256, 1024, 256]},
    SimSiam: {"projector": [512, 512, 512, 128], "predictor": [128, 64, 128]},
    FastSiam: {"projector": [512, 512, 512, 128], "predictor": [128, 64, 128]},
    DINO: {"head": [512, 512, 512, 64]},
    BarlowTwins: {"projector": [512, 2048, 2048, 2048]},
    VICReg: {"projector": [512, 2048, 2048]},
}
by_class = pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)
with_copy = pytest.mark.parametrize("kind", [MoCo, BYOL, DINO], ids=lambda kind: kind.__name__)


def make(kind, device="cpu", **options):
    torch.manual_seed(0)
    return kind(Encoder(), **(SMALL[kind] | options)).to(device)


def make_views(objective, rows=6, device="cpu", seed=0):
    """Views as noisy copies of random pictures; DINO's local ones are smaller."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(rows, 1, 16, 16, generator=generator)
    count = objective.views + objective.local_views
    noise = 0.2 * torch.rand(count, *images.shape, generator=generator)
    views = [(images + one).to(device) for one in noise]
    return views[: objective.views] + [view[..., :12, :12] for view in views[objective.views :]]


@by_class
def test_widths_of_the_table(kind):
    encoder = nn.Identity()
    encoder.dim = 512
    objective = kind(encoder)
    for part, sizes in WIDTHS[kind].items():
        linear = [m for m in getattr(objective, part).modules() if isinstance(m, nn.Linear)]
        assert [linear[0].in_features, *(layer.out_features for layer in linear)] == sizes
    if kind is DINO:
        assert objective.head.prototypes.shape == (2048, 64)


@by_class
def test_loss_reaches_every_trained_parameter(kind, device):
    objective = make(kind, device, **({"frozen": 0} if kind is DINO else {}))
    found = objective(make_views(objective, device=device))
    assert found["loss"].shape == ()
    assert found["loss"].dtype == torch.float32
    assert not any(part.requires_grad for name, part in found.items() if name != "loss")
    found["loss"].backward()
    for name, parameter in objective.named_parameters():
        moving = name.startswith(("key_", "target_", "teacher_"))
        assert parameter.requires_grad != moving, name
        if not moving:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    trained = {p for p in objective.parameters() if p.requires_grad}
    assert set(objective.encoder.parameters()) <= trained


@by_class
def test_learns(kind):
    """On one batch the loss goes down in steps so small that DINO's tiny features can follow.

    A queue or centre that moves would move its aim.
    """
    objective = make(kind, **({"frozen": 0} if kind is DINO else {}))
    views = make_views(objective, rows=8)
    trained = [p for p in objective.parameters() if p.requires_grad]
    aims = [(b, b.clone()) for n, b in objective.named_buffers() if n in ("queue", "center")]
    losses = []
    for _ in range(30):
        torch.manual_seed(0)
        loss = objective(views)["loss"]
        gradients = torch.autograd.grad(loss, trained)
        length = torch.cat([g.flatten() for g in gradients]).norm()
        with torch.no_grad():
            torch._foreach_add_(trained, gradients, alpha=-1e-6 / length.item())
            for buffer, first in aims:
                buffer.copy_(first)
        losses.append(loss.item())
    assert max(losses[-5:]) < losses[0]


@by_class
@pytest.mark.parametrize(("rows", "extra"), [(1, 0), (6, 1), (6, -1)])
def test_bad_views(kind, rows, extra):
    objective = make(kind)
    views = make_views(objective, rows=rows)
    views = views + views[:1] if extra == 1 else views[: len(views) + extra]
    with pytest.raises(ValueError, match="batch of 2" if extra == 0 else "views of every image"):
        objective(views)


@by_class
def test_views_of_unlike_batches(kind):
    objective = make(kind)
    views = make_views(objective)
    with pytest.raises(ValueError, match="same N, got"):
        objective([*views[:-1], views[-1][:4]])


@by_class
def test_resumes_exactly(kind):
    """State after two steps, loaded into a new objective, gives the third step bit for bit."""
    objective = make(kind)

    def step(objective, seed):
        torch.manual_seed(seed)
        loss = objective(make_views(objective, seed=seed))["loss"]
        objective.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in objective.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
        objective.update(seed / 3)
        return loss

    for seed in (0, 1):
        step(objective, seed)
    torch.manual_seed(99)
    resumed = kind(Encoder(), **SMALL[kind])
    resumed.load_state_dict(objective.state_dict())
    assert torch.equal(step(objective, 2), step(resumed, 2))
    for name, value in objective.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@by_class
def test_half_precision_network_float32_loss(kind):
    objective = make(kind)
    views = make_views(objective)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(views)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    torch.manual_seed(0)
    torch.testing.assert_close(loss, make(kind)(views)["loss"], rtol=0.05, atol=0.05)


@with_copy
def test_copy_follows_by_the_momentum(kind):
    objective = make(kind, momentum=0.75)
    pairs = {
        MoCo: [("encoder", "key_encoder"), ("projector", "key_projector")],
        BYOL: [("encoder", "target_encoder"), ("projector", "target_projector")],
        DINO: [("encoder", "teacher_encoder"), ("head", "teacher_head")],
    }[kind]
    sources = [getattr(objective, source) for source, _ in pairs]
    targets = [getattr(objective, target) for _, target in pairs]
    old = copy.deepcopy(targets)
    with torch.no_grad():
        for parameter in nn.ModuleList(sources).parameters():
            parameter.normal_()
    objective.update(0.0)
    for source, target, before in zip(sources, targets, old, strict=True):
        for s, t, b in zip(*(m.parameters() for m in (source, target, before)), strict=True):
            torch.testing.assert_close(t, 0.75 * b + 0.25 * s)
    still = copy.deepcopy(targets)
    objective.update(1.0)
    moved = any(
        not torch.equal(p, q)
        for target, before in zip(targets, still, strict=True)
        for p, q in zip(target.parameters(), before.parameters(), strict=True)
    )
    assert moved == (kind is MoCo)  # the others end at momentum 1


def test_momentum_copy_keeps_its_own_buffers():
    source = nn.BatchNorm1d(2)
    target = momentum_copy(source)
    source.running_mean.fill_(3.0)
    update_momentum(target, source, 0.5)
    assert not target.running_mean.any()
    with pytest.raises(ValueError, match=r"got 1\.5"):
        update_momentum(target, source, 1.5)


def test_cosine_schedule():
    assert cosine_schedule(0, 0.996, 1) == pytest.approx(0.996)
    assert cosine_schedule(0.5, 0.996, 1) == pytest.approx(0.998)
    assert cosine_schedule(1, 0.996, 1) == 1
    with pytest.raises(ValueError, match="progress must be in"):
        cosine_schedule(1.1, 0, 1)


def test_queue_is_first_in_first_out():
    moco = make(MoCo, queue_size=5)
    torch.testing.assert_close(moco.queue.norm(dim=1), torch.ones(5))
    rows = torch.arange(7.0)[:, None].expand(7, 8)
    moco.enqueue(rows[:3])
    moco.enqueue(rows[3:7])
    assert moco.queue[:, 0].tolist() == [5, 6, 2, 3, 4]
    moco.enqueue(rows[:7])  # more than it holds
    assert sorted(moco.queue[:, 0].tolist()) == [2, 3, 4, 5, 6]
    assert moco.queue[moco.pointer, 0] == 2  # the oldest is the next to go


def test_moco_keys_meet_the_queue_after_the_loss():
    moco = make(MoCo)
    views = make_views(moco)
    before = moco.queue.clone()
    moco(views)["loss"].backward()  # raises if the bank changed under it
    assert moco.pointer == 6
    torch.testing.assert_close(moco.queue[:6].norm(dim=1), torch.ones(6))
    assert torch.equal(moco.queue[6:], before[6:])
    assert not torch.isclose(moco.queue[:6], before[:6]).all()
    moco.eval()(views)
    assert moco.pointer == 6


@pytest.mark.parametrize(("rows", "parts"), [(12, 3), (5, 2), (3, 1)])
def test_moco_shuffles_parts_and_puts_keys_back(rows, parts):
    moco = make(MoCo)
    images = make_views(moco, rows=rows)[1]
    seen = []
    hook = moco.key_encoder.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    torch.manual_seed(3)
    keys = moco.keys(images)
    hook.remove()
    assert len(seen) == parts
    assert min(len(part) for part in seen) >= 2
    assert not torch.equal(torch.cat(seen), images)
    assert torch.equal(torch.cat(seen).sum((1, 2, 3)).sort()[0], images.sum((1, 2, 3)).sort()[0])
    for part in seen:  # a row's key is what its part gave it
        expected = F.normalize(moco.key_projector(moco.key_encoder(part)), dim=1)
        where = [int((images == image).all((1, 2, 3)).nonzero()) for image in part]
        torch.testing.assert_close(keys[where], expected)


def test_dino_frees_prototypes_and_moves_center():
    dino = make(DINO, frozen=0.5)
    views = make_views(dino)
    for progress, frozen in ((0.25, True), (0.5, False)):
        dino.zero_grad()
        dino(views)["loss"].backward()
        assert not dino.head.prototypes.grad.any()
        dino.update(progress)
        assert bool(dino.head.freedom) != frozen
    dino.zero_grad()
    dino(views)["loss"].backward()
    assert dino.head.prototypes.grad.any()
    center = dino.center.clone()
    assert center.any()
    dino.eval()(views)
    assert torch.equal(dino.center, center)


def test_dino_head_is_weight_normalised():
    torch.manual_seed(0)
    head = DINOHead(5, 7, 4, prototypes=9)
    reference = nn.utils.parametrizations.weight_norm(nn.Linear(4, 9, bias=False))
    reference.parametrizations.weight.original0.data.fill_(1)
    reference.parametrizations.weight.original1.data.copy_(head.prototypes)
    x = torch.randn(3, 5)
    torch.testing.assert_close(head(x), reference(F.normalize(head.layers(x), dim=1)))
    assert head(x).abs().max() <= 1 + 1e-6


def test_projection_head():
    head = projection_head(6, 5, 4, last_norm=True)
    assert [type(layer).__name__ for layer in head] == [
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
        "BatchNorm1d",
    ]
    assert head[0].bias is None
    assert head[4].weight is None
    z = head(torch.randn(50, 6))
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in projection_head(6, 5, 4, norm=False))
    with pytest.raises(ValueError, match="two or more"):
        projection_head(6)


def test_spread_tells_collapse():
    torch.manual_seed(0)
    assert spread(torch.randn(500, 32)) == pytest.approx(1, abs=0.05)
    assert spread(torch.ones(5, 32) * torch.rand(5, 1)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SimCLR, {"temperature": 0}, "temperature must be > 0, got 0"),
        (MoCo, {"queue_size": 0}, "queue_size and splits"),
        (DINO, {"student_temperature": -1.0}, "temperature must be > 0, got -1.0"),
    ],
    ids=str,
)
def test_bad_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make(kind, **options)
