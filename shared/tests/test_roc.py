import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from papercommons.metrics.roc import weighted_auc
from torchmetrics.functional.classification import binary_auroc


def pairs(scores, positive, weights):
    """The definition, pair by pair."""
    above = (scores[:, None] > scores).double() + (scores[:, None] == scores).double() / 2
    mass = weights[:, None] * weights
    chosen = positive[:, None] & ~positive
    return (above * mass)[chosen].sum() / mass[chosen].sum()


@given(seed=st.integers(0, 500), count=st.integers(2, 30), levels=st.integers(1, 6))
def test_it_is_the_share_of_pairs_in_order(seed, count, levels):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (count,), generator=generator).float()
    positive = torch.rand(count, generator=generator) < 0.5
    positive[0], positive[1] = True, False
    weights = torch.randint(4, (3, count), generator=generator).double()
    got = weighted_auc(scores, positive, weights)
    for row, area in zip(weights, got, strict=True):
        torch.testing.assert_close(area, pairs(scores, positive, row), equal_nan=True)


def test_it_agrees_with_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(500, generator=generator).round(decimals=2)
    positive = torch.rand(500, generator=generator) < scores
    expected = binary_auroc(scores, positive.long()).double()
    torch.testing.assert_close(weighted_auc(scores, positive)[0], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_one_kind_alone_is_undefined(positive):
    assert weighted_auc(torch.tensor([0.1, 0.2]), torch.tensor(positive)).isnan().all()


def test_bad_input_is_refused():
    scores, positive = torch.tensor([0.1, 0.2]), torch.tensor([True, False])
    with pytest.raises(ValueError, match=r"must be \(N,\)"):
        weighted_auc(scores[None], positive)
    with pytest.raises(ValueError, match=r"weights must be \(R, 2\)"):
        weighted_auc(scores, positive, torch.ones(2))
    with pytest.raises(ValueError, match="finite"):
        weighted_auc(torch.tensor([0.1, torch.nan]), positive)
