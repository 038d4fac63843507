"""The study's script: its cases, its judgement, its tables, and a run on an untrained model."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")
FOLDER = Path(__file__).parents[1] / "reproduce"
MODULES = ("run", "pictures", "tables", "judging", "arms", "cases")


@pytest.fixture
def study(monkeypatch):
    """The script's modules by name, forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield {name: importlib.import_module(name) for name in reversed(MODULES)}
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from multi_edits.tiny import make_tiny
    from papercommons.data.scenes import CROWDED, longest_caption, words

    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    made = make_tiny(
        words(CROWDED),
        max_length=longest_caption(CROWDED) + 2,
        channels=(8, 16, 16),
        vae_channels=(8, 8),
    )
    folder = tmp_path_factory.mktemp("model") / "tiny"
    made.save_pretrained(folder)
    return folder


def test_cases_have_the_edits_of_their_stratum(study):
    cases = study["cases"]
    drawn = cases.draw_cases(8, cases.EVALUATION, every=True)
    assert {case.stratum for case in drawn} == set(cases.STRATA)
    for case in drawn:
        kinds = {fact.kind for fact in case.facts}
        assert len(case.facts) in cases.COUNTS
        assert ("background" in kinds) == (case.stratum == "with background")
        assert bool(kinds & {"add", "delete"}) == (case.stratum == "add or delete")
        if case.stratum == "same type":
            assert len(kinds) == 1
        assert len(case.edits) == len(case.facts)
    again = cases.draw_cases(4, cases.EVALUATION, every=True)
    assert [case.facts for case in again] == [case.facts for case in drawn if case.number < 4]
    others = cases.draw_cases(4, cases.TUNING, every=False)
    assert len(others) == 4
    assert {case.scene.caption() for case in others}.isdisjoint(c.scene.caption() for c in drawn)


def test_the_exact_target_succeeds_and_the_source_does_not(study):
    cases, judge = study["cases"], study["judging"].judge
    for case in cases.draw_cases(12, cases.TRIAL, every=True):
        source, after = case.scene.render(), case.after.render()
        found = judge(after, case, source)
        assert found["joint"]
        assert found["leaks"] == 0
        assert found["target"] == 100
        kept = judge(source, case, source)
        assert not kept["edits"]
        assert not any(ok for _, ok in kept["right"])
        assert kept["outside"] in (None, 100)
        noise = np.random.default_rng(0).integers(0, 256, after.shape, dtype=np.uint8)
        assert not judge(noise, case, source)["joint"]


def run_of(arm, number, right, outside):
    rows = [
        {"right": [["color", ok]], "joint": ok, "outside": outside, "scene": k, "k": 1}
        for k, ok in enumerate(right)
    ]
    return {"arm": arm, "setting": {"number": number}, "rows": rows}


def test_the_setting_is_chosen_among_those_that_keep_the_rest(study):
    arm, bound = study["arms"].SINGLE, study["judging"].BOUND
    points = [
        run_of(arm, 0, [True, True], bound - 1),
        run_of(arm, 1, [True, False], bound),
        run_of(arm, 2, [False, False], bound + 9),
    ]
    assert study["tables"].choose(points)[arm]["setting"] == {"number": 1}
    assert study["tables"].choose(points[:1])[arm]["setting"] == {"number": 0}


def test_intervals_hold_the_mean(study):
    values = np.random.default_rng(3).normal(0.2, 1, 400)
    low, high = study["tables"].interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


@pytest.mark.slow
def test_a_quick_run_is_kept_and_drawn(study, model, tmp_path, monkeypatch):
    out = tmp_path / "results.json"
    given = ["--out", str(out), "--model", str(model), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["run.py", *given, "--quick", "--processes", "1"])
    study["run"].main()
    results = json.loads(out.read_text())
    arms = set(study["arms"].ARMS)
    assert {row["arm"] for row in results["frozen"]} == arms
    assert {row["arm"] for row in results["rows"]} > arms
    assert results["notes"].startswith("QUICK")
    overall = {row["arm"]: row["all"] for row in results["joint"]}
    assert overall == {row["arm"]: row["joint"] for row in results["rows"]}
    given = ["--model", str(model), "--results", str(out), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["pictures.py", *given])
    study["pictures"].main()
    for name in ("cases", "tuning"):
        assert (tmp_path / f"multi-edits-{name}.png").stat().st_size > 1000
