import numpy as np
import pytest
from papercommons.errors import DataError
from papercommons.metrics.score_calibration import (
    ScoreCalibration,
    calibrate_scores,
    remembered_calibration,
)


def test_even_odds_lie_where_both_classes_are_as_likely():
    rng = np.random.default_rng(1)
    labels = np.arange(4000) % 4 == 0  # 1 in 4 is fake; p is at even odds all the same
    found = calibrate_scores(3 + 2 * (rng.standard_normal(4000) + labels), labels)
    assert found.threshold == pytest.approx(3 + 2 * 0.5, abs=0.3)
    assert found.probability(found.threshold) == pytest.approx(0.5)
    assert found.slope == pytest.approx(1 / 2, rel=0.15)  # of two normal classes 2 apart, of std 2
    assert (found.fake, found.real) == (1000, 3000)


def test_far_scores_stay_probabilities():
    found = ScoreCalibration(2.0, 1.0)
    p = found.probability(np.array([[-1e6, -0.5], [0.5, 1e6]]))
    assert p.shape == (2, 2)
    np.testing.assert_allclose(p, [[0, 0.5], [1 / (1 + np.exp(-2)), 1]], rtol=1e-12)


def test_scores_that_show_nothing_are_no_evidence():
    assert calibrate_scores([1.0, 2.0], [1, 1]) is None
    assert calibrate_scores([1.0, 2.0], [0, 0]) is None
    wrong_way_round = calibrate_scores([2.0, 1.0], [0, 1])
    assert wrong_way_round.slope == 0
    assert wrong_way_round.threshold == 0


def test_what_a_network_remembers_comes_back():
    found = ScoreCalibration(1.5, -0.25, 3, 4)
    assert remembered_calibration({"calibration": found._asdict()}, "p") == found
    assert remembered_calibration({}, "p") is None


@pytest.mark.parametrize(
    "kept",
    [
        {"slope": -1, "intercept": 0},
        {"slope": "x", "intercept": 0},
        {"slope": float("nan"), "intercept": 0},
        {"slope": 1, "intercept": float("inf")},
        {"slope": 1},
        {"slope": 1, "intercept": 0, "more": 1},
        [1],
    ],
)
def test_what_is_no_calibration_is_refused(kept):
    with pytest.raises(DataError, match=r"a\.json: calibration is not as p writes it"):
        remembered_calibration({"calibration": kept}, "p", source="a.json")
