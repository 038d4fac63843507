from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from papercommons.metrics.calibration import cllr, fit_calibration
from vlm_hv.records import write_records

S, D, U = "same", "different", "unknown"
SETTINGS = {"backend": "openai", "model": "org/model", "mode": "json", "ablation": "none"}


def made(count=40, *, seed=0, first=0, noise=0.25, **settings):
    """Records of a system whose stated probability is right more often than not."""
    random = np.random.default_rng(seed)
    records = []
    for number in range(count):
        label = number % 2
        score = float(np.clip(0.3 + 0.4 * label + random.normal(0, noise), 0, 1))
        place = number + first
        writers = [f"w{place}", f"w{place if label else place + 1000}"]
        records.append(
            {"pair": number, "known": f"k{place}.png", "questioned": f"q{place}.png"}
            | {"label": label, "writers": writers, "score": score, "status": "answered"}
            | {"prediction": S if score > 0.5 else D, "opinions": [], "order_agrees": None}
            | {"settings": SETTINGS | settings, "seconds": 1.0, "cost": None}
            | {"tokens": {"prompt": 700, "completion": 20}, "explanation": "", "findings": []}
        )
    return records


@pytest.fixture
def write(tmp_path):
    def write(name, records):
        folder = tmp_path / name
        folder.mkdir()
        write_records(folder / "predictions.jsonl", records)
        return folder

    return write


@pytest.fixture
def judge(call, capsys):
    """Run vlm-hv-eval and return its result."""

    def judge(*arguments):
        assert call("eval", "--bootstrap", 50, "--json", *arguments) == 0
        return json.loads(capsys.readouterr().out)

    return judge


def test_both_accounts_of_one_run(judge, write, tmp_path):
    records = made(10)
    for place in (0, 3):
        records[place] |= {"prediction": U, "score": None, "status": "unknown"}
    right = sum(r["prediction"] == (S if r["label"] else D) for r in records)
    metrics = judge(write("a", records))["metrics"]
    assert metrics["accuracy_over_all"] == right / 10
    assert metrics["accuracy_over_answered"] == right / 8
    assert metrics["coverage"] == 0.8
    low, high = metrics["intervals"]["accuracy_over_all"]
    assert low <= right / 10 <= high
    shown = {row["metric"] for row in judge(tmp_path / "a", "--unknown", "wrong")["rows"]}
    assert not any("answered" in name for name in shown)


def test_calibrated_likelihood_ratios_are_those_of_the_other_pairs(judge, write, tmp_path):
    run, val = made(60, seed=1), made(80, seed=2, first=500)
    run[0] |= {"prediction": U, "score": None, "status": "unknown"}

    def odds(score):
        clipped = min(max(score, 1e-6), 1 - 1e-6)
        return math.log(clipped / (1 - clipped))

    fitted = fit_calibration([odds(r["score"]) for r in val], [r["label"] for r in val])
    llr = [0.0 if r["score"] is None else float(fitted.llr(odds(r["score"]))) for r in run]
    out = tmp_path / "out"
    found = judge(write("run", run), "--calibration", write("val", val), "--out", out)["metrics"]
    assert found["calibrated_cllr"] == pytest.approx(cllr(llr, [r["label"] for r in run]))
    with (out / "items.csv").open(newline="") as file:
        written = [float(row["ln_lr"]) for row in csv.DictReader(file)]
    assert written == pytest.approx(llr, abs=1e-4)
    page = (out / "report.html").read_text()
    assert "Tippett" in page
    assert page.count("<img") == 3


def test_several_runs_are_judged_on_the_pairs_they_share(judge, write):
    one = made(40, seed=1)
    two = made(30, seed=2, model="other")[::-1]  # another order, fewer pairs
    for number, record in enumerate(two):
        record["pair"] = number
    found = judge(write("a", one), write("b", two))
    assert [row["system"] for row in found["rows"]] == ["org/model, json", "other, json"]
    assert "10 PAIRS LEFT OUT" in " ".join(found["notes"])
    alone = judge(write("c", one[:30]))["metrics"]
    assert found["metrics"]["org/model, json"]["accuracy_over_all"] == alone["accuracy_over_all"]
    assert found["metrics"]["other, json"]["counts"]["pairs"] == 30


def test_the_gap_to_a_control(judge, write):
    run = made(60, noise=0.01)
    blank = made(60, noise=0.01, ablation="blank")
    for record in blank:
        record |= {"prediction": S, "score": 0.9}
    found = judge(write("run", run), write("blank", blank))
    (gap,) = found["metrics"]["ablation_gaps"]
    assert (gap["control"], gap["gap"]) == ("blank", 0.5)
    said = " ".join(found["notes"])
    assert "CONTROL: the pictures were blank" in said
    assert "MAY MAKE NO DIFFERENCE" not in said
    found = judge(write("blind", blind(run)), write("control", blind(blank)))
    assert "THE PICTURES MAY MAKE NO DIFFERENCE" in " ".join(found["notes"])


def blind(records):
    return [record | {"prediction": S, "score": 0.9} for record in records]


def test_repeats_of_a_pair_in_a_list_are_told_apart(judge, write):
    records = made(12)
    records[11] |= {k: records[9][k] for k in ("known", "questioned", "label", "writers")}
    other = [r | {"settings": SETTINGS | {"model": "m"}} for r in records]
    found = judge(write("a", records), write("b", other))
    assert found["metrics"]["m, json"]["counts"]["pairs"] == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": SETTINGS | {"model": "other"}}, "its model is 'other', that of the run"),
        ({"known": "k1.png", "questioned": "q1.png"}, "of its pairs are judged too"),
        ({"label": 1}, "needs pairs with label and score, of both kinds"),
    ],
)
def test_calibrations_that_flatter_are_refused(call, write, change, message, capsys):
    val = [record | change for record in made(8, first=500)]
    assert call("eval", write("a", made(8)), "--calibration", write("val", val)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_shared_writers_of_a_calibration_are_said_loudly(judge, write):
    val = [r | {"known": f"other{n}.png"} for n, r in enumerate(made(20, seed=3))]
    found = judge(write("a", made(20)), "--calibration", write("val", val))
    assert "WRITERS OF THE CALIBRATION ARE JUDGED TOO" in " ".join(found["notes"])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([r | {"label": 1} for r in made(4)], "all labels are 1"),
        ([r | {"label": None} for r in made(4)], "4 of 4 pairs have no label"),
        ([r | {"score": 2} for r in made(4)], "line 1: score is 2"),
    ],
)
def test_records_that_cannot_be_judged(call, write, records, message, capsys):
    assert call("eval", write("a", records)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_runs_without_a_common_pair(call, write, capsys):
    one, two = write("a", made(4)), write("b", made(4, first=90))
    assert call("eval", one, two) == 2
    assert "have no pair in common; run them on the same --pairs" in capsys.readouterr().err
    assert call("eval", one, one) == 2
    assert "given twice" in capsys.readouterr().err
    assert call("eval", one, "--calibration", f"{two},{one}") == 2
    assert "--calibration needs one file per run" in capsys.readouterr().err
