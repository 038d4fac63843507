from __future__ import annotations

import math

import pytest
import torch
from papercommons.metrics.roc import weighted_auc
from papercommons.metrics.score_calibration import ScoreCalibration, remembered_calibration
from semforge.calibration import calibrate, threshold_of
from semforge.graph import LabelGraph
from semforge.heads import GraphHead
from semforge.inspector import Scores
from semforge.judgement import NO_BETTER, Judgement, mean_by_group
from semforge.pictures import judgement_sections, worst_faces

GRAPH = LabelGraph.soft_or("fake", {"age": ["eye", "skin"], "pose": ["eye"]}, name="small")


def made(scores, labels, videos=None, methods=None):
    """Scores of a graph head as an inspector reads them."""
    head = GraphHead(GRAPH)
    on, off = head.log_probabilities(scores)
    count = len(scores)
    return Scores(
        [f"{i}.png" for i in range(count)],
        videos or [""] * count,
        methods or ["real" if label[0] == 0 else "fake" for label in labels],
        labels.to(torch.int8),
        scores,
        on - off,
        head.probabilities(scores),
        head.decode(scores),
    )


def drawn(count=60, seed=0):
    chance = torch.Generator().manual_seed(seed)
    states = GRAPH.states.long()
    labels = states[torch.randint(len(states), (count,), generator=chance)]
    labels[::2] = 0
    scores = 2.0 * (2 * labels - 1) + 2 * torch.randn(count, 5, generator=chance)
    return scores, labels


def judge(scores, **options):
    return Judgement.of(scores, GRAPH.nodes, draws=50, **options)


def test_unknown_roots_and_nodes_are_left_out():
    scores, labels = drawn()
    labels[0, 0] = labels[1, 0] = 2
    labels[5:20, 3] = 2
    seen = made(scores, labels)
    found = judge(seen)
    known = labels[:, 0] != 2
    expected = weighted_auc(seen.log_odds[known, 0], labels[known, 0] == 1)
    assert found.faces["auc"].value == pytest.approx(float(expected))
    rows = {row["node"]: row for row in found.node_table()}
    known = labels[:, 3] != 2
    expected = weighted_auc(seen.log_odds[known, 3], labels[known, 3] == 1)
    assert rows["eye"]["auc"] == pytest.approx(float(expected))
    assert rows["eye"]["altered"] + rows["eye"]["not_altered"] == int(known.sum()) == 45
    assert "2 unknown, which count for the other nodes" in found.notes()[0]


def test_decoded_labels_are_counted_where_they_are_known():
    labels = torch.tensor([[0, 0, 0, 0, 0], [1, 1, 0, 1, 0], [1, 2, 2, 2, 2], [1, 2, 2, 0, 2]])
    says = torch.tensor([[0, 0, 0, 0, 0], [1, 1, 0, 1, 1], [1, 0, 1, 1, 0], [1, 0, 1, 1, 0]])
    found = judge(made(8.0 * (2 * says - 1), labels))
    assert torch.equal(found.scores.decoded.long(), says)
    states = found.states()
    assert (states["exact"], states["wholly_known"]) == (0.5, 2)  # the second differs in skin
    assert (states["agree"], states["faces"]) == (0.5, 4)  # the fourth: eye is known to be 0


def test_a_video_is_the_mean_of_its_faces():
    scores, labels = drawn(40)
    videos = [f"v{i // 4}" for i in range(40)]
    labels = labels[::4].repeat_interleave(4, 0)
    labels[20:, 0] = 1
    seen = made(scores, labels, videos)
    found = judge(seen)
    means = seen.probabilities[:, 0].double().view(10, 4).mean(1)
    truth = labels[::4, 0] == 1
    assert found.videos["auc"].value == pytest.approx(float(weighted_auc(means, truth)))
    accuracy = ((means >= 0.5) == truth).double().mean()
    assert found.videos["accuracy"].value == pytest.approx(float(accuracy))
    assert judge(made(scores, labels)).videos == {}
    names, of_groups = mean_by_group(torch.tensor([1.0, 2.0, 6.0]), ["b", "a", "b"])
    assert (names, of_groups.tolist()) == (["b", "a"], [3.5, 2.0])


def test_methods_are_judged_against_all_real_faces():
    scores, labels = drawn()
    kinds = ["real" if y == 0 else "ab"[i % 2] for i, y in enumerate(labels[:, 0])]
    labels[1, 0] = 1
    kinds[1] = "c"
    seen = made(scores, labels, methods=kinds)
    rows = {row["method"]: row for row in judge(seen, threshold=0.3).method_table()}
    assert next(iter(rows)) == "real"
    odds = seen.log_odds[:, 0].double()
    called = odds >= math.log(0.3 / 0.7)
    for method, row in rows.items():
        own = torch.tensor([kind == method for kind in kinds])
        assert row["called_fake"] == pytest.approx(float(called[own].double().mean()))
        if method != "real":
            some = own | (labels[:, 0] == 0)
            expected = float(weighted_auc(odds[some], labels[some, 0] == 1))
            assert row["auc"] == pytest.approx(expected)
    assert "auc" not in rows["real"]


def test_no_better_than_chance_is_said_aloud():
    scores, labels = drawn()
    said = [NO_BETTER in judge(made(k * scores, labels)).notes() for k in (1, 0, -1)]
    assert said == [False, True, True]


def test_one_class_is_said_aloud():
    scores, labels = drawn()
    found = judge(made(scores[::2], labels[::2]))
    assert any("ONLY ONE CLASS" in line for line in found.notes())
    assert math.isnan(found.faces["auc"].value)
    assert [section.heading for section in judgement_sections(found, None)] == [
        "Nodes of the graph",
        "By method",
    ]
    with pytest.raises(ValueError, match="no face is known to be fake or real"):
        judge(made(scores, torch.full_like(labels, 2)))


def test_the_worst_faces_are_the_surest_errors():
    scores, labels = drawn(200)
    found = judge(made(scores, labels))
    odds, root = found.scores.log_odds[:, 0], labels[:, 0]
    for heading, places in worst_faces(found).items():
        value, sign = (0, 1) if heading.startswith("Real") else (1, -1)
        wrong = [i for i in range(200) if root[i] == value and (odds[i] >= 0) != value]
        expected = sorted(wrong, key=lambda i: -sign * float(odds[i]))[:6]
        assert places == expected


def test_calibration_sets_threshold_and_probability():
    scores, labels = drawn(400)
    seen = made(scores + torch.tensor([3.0, 0, 0, 0, 0]), labels)
    odds = seen.log_odds[:, 0]
    found = calibrate(odds, labels[:, 0])
    assert (found.fake, found.real) == (int(labels[:, 0].sum()), int((labels[:, 0] == 0).sum()))
    assert found.threshold > 0.5  # the scores were shifted
    assert found.probability(found.threshold) == pytest.approx(0.5)
    judged = judge(seen, calibration=found)
    assert judged.calibration["ece_calibrated"] < 0.5 * judged.calibration["ece"]
    assert judged.threshold == found.threshold == threshold_of(found, None)
    assert threshold_of(found, 0.5) == 0
    assert threshold_of(None, 0.8) == pytest.approx(math.log(4))
    assert remembered_calibration({"calibration": found._asdict()}, "semforge") == found
    unknown = torch.full((5,), 2)
    kept = calibrate(torch.cat([odds, torch.zeros(5)]), torch.cat([labels[:, 0], unknown]))
    assert kept == found


def test_without_both_classes_there_is_no_calibration():
    assert calibrate(torch.zeros(3), torch.ones(3)) is None
    assert remembered_calibration({}, "semforge") is None
    assert ScoreCalibration(0.0, 0.0).threshold == 0


@pytest.mark.parametrize("kept", [[1], {"slope": -1, "intercept": 0}, {"slope": "x"}, {"a": 1}])
def test_a_broken_calibration(kept):
    with pytest.raises(ValueError, match="calibration is not as semforge writes it"):
        remembered_calibration({"calibration": kept}, "semforge")
