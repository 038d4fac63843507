import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nlran.evaluation import (
    classification_numbers,
    classification_report,
    confusion_rows,
    per_class_rows,
    report_sections,
)
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error


def draw(count, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(count, classes, generator=generator).double().softmax(1)
    target = torch.randint(classes, (count,), generator=generator)
    target[:classes] = torch.arange(classes)
    return probabilities, target


@given(count=st.integers(6, 60), classes=st.integers(2, 4), seed=st.integers(0, 1000))
def test_the_numbers_are_those_of_scikit_learn(count, classes, seed):
    probabilities, target = draw(count, classes, seed)
    answer = probabilities.argmax(1)
    numbers = {k: v.item() for k, v in classification_numbers(probabilities, target).items()}
    of = {"y_true": target, "y_pred": answer, "zero_division": 0}
    expected = {
        "accuracy": metrics.accuracy_score(target, answer),
        "macro_precision": metrics.precision_score(average="macro", **of),
        "macro_recall": metrics.recall_score(average="macro", **of),
        "macro_f1": metrics.f1_score(average="macro", **of),
        "weighted_precision": metrics.precision_score(average="weighted", **of),
        "weighted_f1": metrics.f1_score(average="weighted", **of),
        "macro_auc": sum(
            metrics.roc_auc_score(target == c, probabilities[:, c]) for c in range(classes)
        )
        / classes,
        "nll": metrics.log_loss(target, probabilities, labels=list(range(classes))),
        "ece": multiclass_calibration_error(probabilities, target, classes, n_bins=15).item(),
    }
    assert numbers.keys() == expected.keys()
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(value, abs=1e-5), name


def test_whole_weights_are_repeated_scans():
    probabilities, target = draw(30, 3)
    weights = torch.randint(3, (5, 30), generator=torch.Generator().manual_seed(2))
    weighted = classification_numbers(probabilities, target, weights)
    for row, times in enumerate(weights):
        repeated = classification_numbers(
            probabilities.repeat_interleave(times, 0), target.repeat_interleave(times)
        )
        for name, value in repeated.items():
            torch.testing.assert_close(weighted[name][row], value[0], equal_nan=True)


def test_an_absent_class_makes_macro_numbers_undefined_not_zero():
    probabilities, target = draw(20, 3)
    target[target == 2] = 1
    numbers, notes = classification_report(probabilities, target, list(range(20)), draws=50)
    for name in ("macro_auc", "macro_precision", "macro_recall", "macro_f1"):
        assert math.isnan(numbers[name])
        assert math.isnan(numbers[f"{name}_low"])
    assert math.isfinite(numbers["accuracy"])
    assert notes == ["no scan of class 2: macro numbers are not defined"]


def test_intervals_resample_patients_not_scans():
    probabilities, target = draw(40, 2, seed=3)
    alone, _ = classification_report(probabilities, target, list(range(40)))
    doubled, _ = classification_report(
        probabilities.repeat(2, 1), target.repeat(2), list(range(40)) * 2
    )
    for name, value in alone.items():
        assert doubled[name] == pytest.approx(value, abs=1e-9), name
    width = alone["accuracy_high"] - alone["accuracy_low"]
    share = alone["accuracy"]
    assert width == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 40), rel=0.15)


def test_few_patients_give_no_macro_interval_and_say_so():
    probabilities, target = draw(3, 3)
    numbers, notes = classification_report(probabilities, target, [0, 1, 2])
    assert math.isnan(numbers["macro_auc_low"])
    assert "too few patients" in notes[0]


def test_sensitivity_is_read_where_the_specificity_holds_and_can_be_told():
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    target = torch.tensor([1, 1, 0, 1, 0, 0])
    probabilities = torch.stack([1 - scores, scores], 1)
    sensitivity = {
        specificity: per_class_rows(probabilities, target, "ab", specificity=specificity)[1]
        for specificity in (0.6, 0.66, 0.95)
    }
    assert sensitivity[0.6]["sensitivity"] == pytest.approx(1)
    assert sensitivity[0.66]["sensitivity"] == pytest.approx(1)
    assert sensitivity[0.95]["sensitivity"] is None  # three negatives cannot tell 0.95 from 1
    many = probabilities.repeat(7, 1), target.repeat(7)
    row = per_class_rows(*many, "ab", specificity=0.95)[1]
    assert row["sensitivity"] == pytest.approx(2 / 3)


def test_confusions_stand_in_the_row_of_the_true_class():
    rows = confusion_rows(torch.tensor([1, 1, 0]), torch.tensor([0, 1, 0]), ["a", "b"])
    assert rows == [
        {"label": "a", "predicted_a": 1, "predicted_b": 1},
        {"label": "b", "predicted_a": 0, "predicted_b": 1},
    ]


def test_the_report_has_its_pictures_even_with_an_absent_class():
    probabilities, target = draw(12, 3)
    target = target.clamp(max=1)
    rows = per_class_rows(probabilities, target, ["a", "b", "c"])
    sections = report_sections(probabilities, target, rows)
    assert sections[1].figure.startswith(b"\x89PNG")
    assert sections[0].rows[2]["AUC"] != sections[0].rows[2]["AUC"]
