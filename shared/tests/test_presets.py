from __future__ import annotations

import logging

import pytest
from papercommons.presets import resolve_preset

PRESETS = {"quick": {"epochs": 3, "lr": 0.1}, "paper": {"epochs": 90, "lr": 0.2}}


@pytest.mark.parametrize(
    ("preset", "cuda", "name"),
    [("auto", False, "quick"), ("auto", True, "paper"), ("paper", False, "paper")],
)
def test_a_preset_is_chosen_and_said(preset, cuda, name, caplog):
    with caplog.at_level(logging.INFO, "papercommons"):
        found = resolve_preset(PRESETS, preset, {}, cuda=cuda)
    assert found == {"preset": name, **PRESETS[name]}
    assert caplog.messages == [f"preset {name}: epochs {found['epochs']}, lr {found['lr']}"]


def test_what_is_given_wins_also_where_it_is_zero():
    found = resolve_preset(PRESETS, "quick", {"lr": 0.0, "epochs": None, "seed": 4}, cuda=False)
    assert found == {"preset": "quick", "epochs": 3, "lr": 0.0}
