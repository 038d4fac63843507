"""Tests of the curves of a run."""

from papercommons import training
from papercommons.training import history_section


def test_curves_of_a_run_are_those_that_its_last_epoch_has(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "curves_png", lambda panels: seen.append(panels) or b"png")
    rows = [{"epoch": 0, "train/loss": 2.0}, {"epoch": 1, "train/loss": 1.0, "val/auc": 0.5}]
    panels = {"loss": ("train/loss", "val/loss"), "AUC": ("val/auc",), "none": ("val/f1",)}
    section = history_section(rows, panels, caption="Means.")
    assert seen == [{"loss": {"train/loss": [2.0, 1.0]}, "AUC": {"val/auc": [None, 0.5]}}]
    assert (section.heading, section.caption, section.figure) == ("Training", "Means.", b"png")
