"""The study's script on untrained models: what it keeps, reuses and writes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")
FOLDER = Path(__file__).parents[1] / "reproduce"
MODULES = ("run", "plan", "answers", "tables", "scene_clip")
KINDS = ("color", "relation")


@pytest.fixture
def study(monkeypatch):
    """The script's modules by name, forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield {name: importlib.import_module(name) for name in reversed(MODULES)}
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    from d_tiil.tiny import make_tiny
    from papercommons.data.scenes import find_preset, longest_caption, words

    root = tmp_path_factory.mktemp("models")
    for name in ("simple", "crowded"):
        preset = find_preset(name)
        made = make_tiny(
            words(preset),
            max_length=longest_caption(preset) + 2,
            channels=(8, 16, 16),
            vae_channels=(8, 8),
        )
        made.save_pretrained(root / name)
    return root


def test_shares_and_scenes(study):
    plan = study["plan"]
    tasks = list(plan.jobs(100, plan.EVALUATION))
    assert len(set(tasks)) == len(tasks)
    assert len({(job.group, job.name, job.part) for job in tasks}) == len(tasks)

    def count(kind, part, split="test", group=plan.SIMPLE):
        own = [
            job
            for job in tasks
            if (job.group, job.split, job.part) == (group, split, part)
            and job.name.startswith(kind)
        ]
        return len(own), sum(job.full for job in own)

    assert count("color", "caption") == (100, 100)
    assert count("shape", "consistent") == (100, 10)
    assert count("background", "image") == (50, 25)
    assert count("color", "control") == (25, 10)
    assert count("color", "caption", "val") == (25, 25)
    assert count("relation", "caption") == (50, 25)
    assert count("whole", "caption", "val") == (0, 0)
    assert count("color", "caption", group=plan.HELD_OUT) == (25, 0)
    few = {job.name: job for job in plan.jobs(4, plan.EVALUATION) if job.part == "caption"}
    for job in few.values():
        record, same = (plan.record_of(job, n, plan.EVALUATION) for n in (4, 100))
        assert record.digest() == same.digest()
    other = plan.record_of(job, 4, plan.TRIAL)
    assert other.digest() != record.digest()
    seen = {job.name.split("-")[1] for job in tasks}
    assert seen == {"test", "val"}


def test_findings_survive_packing(study):
    from d_tiil import Phrase
    from d_tiil.findings import Finding

    answers = study["answers"]
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    kept = json.loads(json.dumps(answers.packed(Finding(0.5, None, levels, (), Phrase("a", 0, 1)))))
    found = answers.unpacked(kept)
    assert (found.score, found.top, found.mask) == (0.5, Phrase("a", 0, 1), None)
    np.testing.assert_array_equal(found.map, levels)
    nothing = answers.unpacked(answers.packed(Finding()))
    assert (nothing.score, nothing.map, nothing.top) == (None, None, None)


def test_a_small_study_is_kept_and_written(study, models, quick, tmp_path, monkeypatch):
    run, plan = study["run"], study["plan"]
    monkeypatch.setattr(study["answers"], "SETTINGS", quick)
    monkeypatch.setattr(run, "SETTINGS", quick)
    monkeypatch.setattr(
        run, "jobs", lambda *a: (j for j in plan.jobs(*a) if j.name.split("-")[0] in KINDS)
    )
    asked = []

    def perform(options, tasks):
        for job in tasks:
            if not run.is_done(options, job):
                asked.append(job)
                run.do(options, job)

    monkeypatch.setattr(run, "perform", perform)
    out = tmp_path / "out.json"
    words = ["run.py", "--out", out, "--runs", tmp_path / "runs", "--quick", "--scenes", 2]
    words += ["--model", models / "simple", "--crowded-model", models / "crowded"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    run.main()
    first = json.loads(out.read_text())
    asked_first = len(asked)
    assert asked_first == len({plan.Job(*job) for job in asked}) > 10
    methods = {row["method"] for row in first["rows"]}
    assert methods == set(study["answers"].METHODS)
    assert {row["kind"] for row in first["rows"]} == {*KINDS, "all"}
    crowded = json.loads((tmp_path / "out-crowded.json").read_text())
    assert {row["model"] for row in crowded["rows"]} == {plan.SEEN, plan.HELD_OUT}
    assert [row["model"] for row in crowded["models"]] == [plan.SEEN, plan.HELD_OUT]
    assert {row["kind"] for row in first["image"]} == {"color", "all"}
    by = {(row["kind"], row["method"]): row for row in first["rows"]}
    assert by["color", "full mask"]["IoU"] < 0.5
    assert by["color", "true caption"]["AUC"] is not None
    assert by["relation", "four steps"]["pairs"] == 1
    alarms = {row["method"]: row for row in first["false_alarms"]}
    assert alarms["full mask"]["area"] == 1
    assert alarms["true caption"]["area"] == 0
    assert {row["aim"] for row in first["aims"]} >= {"word top-1", "detection AUC"}
    kept = next(file for file in (tmp_path / "runs").rglob("*-caption.json"))
    before = kept.stat().st_mtime_ns
    run.main()
    assert len(asked) == asked_first
    assert kept.stat().st_mtime_ns == before
    assert json.loads(out.read_text()) == first
    (tmp_path / "out-crowded.json").unlink()
    for only in ("simple", "crowded"):
        monkeypatch.setattr(sys, "argv", [*map(str, words), "--only", only])
        run.main()
        assert (tmp_path / "out-crowded.json").is_file() == (only == "crowded")
    assert json.loads(out.read_text()) == first
    assert json.loads((tmp_path / "out-crowded.json").read_text()) == crowded
    assert len(asked) == asked_first
