import pytest
from nlran.tables import kept_slices


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("2|reverse", [3, 2, 0]),
        ("reverse|", [3, 2, 1, 0]),
        ("|reverse", [3, 2, 1, 0]),
        ("2|3-4+1-2", [2, 3, 0]),
        ("|", [0, 1, 2, 3]),
        ("discard|", []),
    ],
)
def test_rules_of_clean_ccccii(rule, kept):
    assert kept_slices([1, 2, 3, 4], rule) == kept


def test_absurd_spans_cost_nothing():
    assert kept_slices([3, 4], "0-999999999|") == []
