"""Identities, invariants and gradients of the joint-embedding losses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ssl_hv.objectives.barlow_twins import barlow_twins_loss
from ssl_hv.objectives.byol import byol_loss
from ssl_hv.objectives.dino import dino_loss
from ssl_hv.objectives.fastsiam import fastsiam_loss
from ssl_hv.objectives.moco import info_nce_loss
from ssl_hv.objectives.redundancy import off_diagonal_energy
from ssl_hv.objectives.simclr import nt_xent_loss
from ssl_hv.objectives.simsiam import negative_cosine, simsiam_loss
from ssl_hv.objectives.vicreg import vicreg_loss, vicreg_terms
from torch.nn import functional as F

PAIR_LOSSES = (nt_xent_loss, barlow_twins_loss, vicreg_loss, negative_cosine)
sizes = st.tuples(st.integers(2, 9), st.integers(2, 24), st.integers(0, 99))


def pair(rows=5, dim=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, dim, generator=generator, dtype=dtype).unbind()


def bank_loss(query, key):
    return info_nce_loss(query, key, F.normalize(pair(7, query.shape[1], 5)[0], dim=1))


@pytest.mark.parametrize("dim", [4, 12], ids=["square", "gram"])
@pytest.mark.parametrize(
    "loss", [nt_xent_loss, barlow_twins_loss, vicreg_loss, bank_loss], ids=lambda f: f.__name__
)
def test_gradients(loss, dim):
    assert torch.autograd.gradcheck(loss, [z.requires_grad_() for z in pair(dim=dim)])


def test_gradients_of_several_views():
    p, z = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    student, center = torch.cat([p, z[:1]]).requires_grad_(), z[0, 0]
    assert torch.autograd.gradcheck(lambda p: fastsiam_loss(p, z), p.clone().requires_grad_())
    # soft: central differences cannot follow a temperature of 0.04
    soft = {"teacher_temperature": 1.0, "student_temperature": 1.0}
    assert torch.autograd.gradcheck(lambda s: dino_loss(p[:2], s, center, **soft), student)


@given(sizes)
def test_swapped_views_and_shuffled_rows_change_nothing(size):
    za, zb = pair(*size)
    order = torch.randperm(len(za), generator=torch.Generator().manual_seed(1))
    for loss in (nt_xent_loss, barlow_twins_loss, vicreg_loss):
        torch.testing.assert_close(loss(zb, za), loss(za, zb))
        torch.testing.assert_close(loss(za[order], zb[order]), loss(za, zb))


@given(sizes, st.floats(0.01, 100))
def test_lengths_and_scales_change_nothing(size, scale):
    za, zb = pair(*size)
    lengths = torch.linspace(0.5, scale, len(za), dtype=za.dtype)[:, None]
    for loss in (nt_xent_loss, negative_cosine, bank_loss):
        torch.testing.assert_close(loss(za * lengths, zb), loss(za, zb))
    shift = torch.arange(za.shape[1], dtype=za.dtype)
    torch.testing.assert_close(vicreg_loss(za + shift, zb + shift), vicreg_loss(za, zb))
    torch.testing.assert_close(
        barlow_twins_loss(1e3 * za + shift, zb), barlow_twins_loss(1e3 * za, zb)
    )


@given(sizes)
def test_off_diagonal_energy_is_that_of_the_matrix(size):
    a, b = pair(*size)
    products = (a.T @ b).fill_diagonal_(0)
    torch.testing.assert_close(off_diagonal_energy(a, b), products.square().sum())
    own = (a.T @ a).fill_diagonal_(0)
    torch.testing.assert_close(off_diagonal_energy(a, a), own.square().sum())


@given(st.integers(2, 20), st.floats(0.05, 2))
def test_nt_xent_of_identical_rows(rows, temperature):
    z = torch.ones(rows, 3)
    loss = nt_xent_loss(z, z, temperature=temperature)
    assert loss.item() == pytest.approx(math.log(2 * rows - 1), rel=1e-5)


@given(sizes, st.floats(0.05, 2))
def test_nt_xent_by_its_formula(size, temperature):
    za, zb = pair(*size)
    rows = F.normalize(torch.cat([za, zb]), dim=1)
    total = 0.0
    for i, row in enumerate(rows):
        similar = (rows @ row / temperature).exp()
        positive = similar[(i + len(za)) % len(rows)]
        total -= (positive / (similar.sum() - similar[i])).log()
    torch.testing.assert_close(nt_xent_loss(za, zb, temperature=temperature), total / len(rows))


def test_info_nce_by_its_formula():
    query, key = (F.normalize(z, dim=1) for z in pair())
    bank = F.normalize(pair(9)[1], dim=1)
    positive, negative = ((query * key).sum(1) / 0.2).exp(), (query @ bank.T / 0.2).exp().sum(1)
    expected = -(positive / (positive + negative)).log().mean()
    torch.testing.assert_close(info_nce_loss(3 * query, key, bank, temperature=0.2), expected)


def test_whitened_views_have_no_barlow_and_little_vicreg():
    z = torch.randn(64, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    white = torch.linalg.qr(z - z.mean(0))[0] * math.sqrt(64)
    assert barlow_twins_loss(white, white).item() == pytest.approx(0, abs=1e-8)
    assert vicreg_loss(2 * white, 2 * white).item() == pytest.approx(0, abs=1e-8)


def test_collapse_costs():
    z = torch.ones(8, 4)
    terms = vicreg_terms(z, z)
    assert terms.invariance == 0
    assert terms.variance.item() == pytest.approx(1 - math.sqrt(1e-4))
    assert barlow_twins_loss(z, z).item() == pytest.approx(4)


def test_vicreg_of_a_view_with_itself_has_no_invariance():
    za, _ = pair()
    assert vicreg_terms(za, za).invariance == 0
    weights = {"invariance": 1.0, "variance": 0.0, "covariance": 0.0}
    assert vicreg_loss(za, za, **weights) == 0


@given(sizes)
def test_negative_cosines_end_at_minus_one(size):
    za, zb = pair(*size)
    assert simsiam_loss(2 * zb, 3 * za, za, zb).item() == pytest.approx(-1)
    assert byol_loss(zb, za, za, zb).item() == pytest.approx(-1)
    distances = [
        (F.normalize(p, dim=1) - F.normalize(t, dim=1)).square().sum(1).mean()
        for p, t in ((za, zb), (zb, za))
    ]
    assert sum(distances).item() == pytest.approx(4 + 4 * byol_loss(za, zb, za, zb).item())


def test_targets_get_no_gradient():
    za, zb = (z.requires_grad_() for z in pair())
    for loss in (
        negative_cosine(za, zb),
        simsiam_loss(za, za, zb, zb),
        byol_loss(za, za, zb, zb),
        fastsiam_loss(torch.stack([za, za]), torch.stack([zb, zb])),
        dino_loss(zb[None], torch.stack([za, za]), za[0].detach()),
    ):
        gradients = torch.autograd.grad(loss, [za, zb], allow_unused=True)
        assert gradients[0].any()
        assert gradients[1] is None or not gradients[1].any()


def test_fastsiam_by_its_formula():
    p, z = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = sum(
        negative_cosine(p[i], torch.stack([z[j] for j in range(4) if j != i]).mean(0))
        for i in range(4)
    )
    torch.testing.assert_close(fastsiam_loss(p, z), expected / 4)
    torch.testing.assert_close(fastsiam_loss(p[:2], z[:2]), simsiam_loss(p[0], p[1], z[0], z[1]))


def test_dino_by_its_formula():
    teacher, student = torch.randn(2, 5, 3, 7, generator=torch.Generator().manual_seed(0))
    center = torch.linspace(-1, 1, 7)
    terms = [
        -(((t - center) / 0.04).softmax(1) * (s / 0.1).log_softmax(1)).sum(1).mean()
        for i, t in enumerate(teacher[:2])
        for j, s in enumerate(student)
        if i != j
    ]
    assert len(terms) == 8
    torch.testing.assert_close(dino_loss(teacher[:2], student, center), sum(terms) / 8)


@pytest.mark.parametrize("loss", PAIR_LOSSES, ids=lambda f: f.__name__)
def test_float32_inside_autocast(loss):
    """Also its products: of the same half-precision rows the loss is that of float32 rows."""
    za, zb = (z.bfloat16() for z in pair(6, 30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(za, zb)
        if loss is vicreg_loss:
            assert torch.equal(found, loss(za=za, zb=zb))
    assert torch.equal(found, loss(za.float(), zb.float()))
    assert found.dtype == torch.float32


@pytest.mark.parametrize("loss", PAIR_LOSSES[:3], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 4), (1, 4)), "needs 2 or more, got 1"),
        (((4, 4), (4, 3)), r"got \(4, 4\) and \(4, 3\)"),
        (((4,), (4,)), r"2 dimensions, got \(4,\)"),
    ],
    ids=["one row", "unlike", "vector"],
)
def test_bad_shapes(loss, shapes, message):
    with pytest.raises(ValueError, match=message):
        loss(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: nt_xent_loss(z, z, temperature=0), "temperature must be > 0, got 0"),
        (lambda z: info_nce_loss(z, z, z[:, :2]), r"bank must be \(K, 4\), got \(3, 2\)"),
        (lambda z: fastsiam_loss(z[None], z[None]), "2 views or more, got 1"),
        (lambda z: dino_loss(z[None], z[None], z[0]), r"got \(1, 3, 4\), \(1, 3, 4\) and \(4,\)"),
        (lambda z: dino_loss(z[None], torch.stack([z, z]), z), "center"),
    ],
    ids=["temperature", "bank", "views", "student", "center"],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(3, 4))


@pytest.mark.parametrize(
    "loss", [*PAIR_LOSSES, info_nce_loss, dino_loss, fastsiam_loss], ids=lambda f: f.__name__
)
def test_compiles_without_a_break(loss):
    za, zb = pair(6, 30)
    several = (za[None], torch.stack([za, zb]), za[0])
    arguments = {info_nce_loss: (za, zb, za), dino_loss: several, fastsiam_loss: 2 * several[1:2]}
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    given = arguments.get(loss, (za, zb))
    torch.testing.assert_close(compiled(*given), loss(*given))
