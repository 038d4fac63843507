from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

OWN = """
name: own
root: fake
global: {age: [eye, skin], expression: [eye, lip]}
exclusion: [[age, expression]]
"""


def test_show_counts_states(call, capsys, tmp_path):
    assert call("graph", "show", "ffpp", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["states"] == 251
    assert found["metrics"]["states_with_root"] == 250
    assert found["metrics"]["root_prior"] == pytest.approx(-np.log(250))
    rows = {row["node"]: row for row in found["rows"]}
    assert (rows["expression"]["needs"], rows["expression"]["needs one of"]) == (
        "fake",
        "lip, mouth",
    )
    (tmp_path / "own.yaml").write_text(OWN)
    assert call("graph", "show", tmp_path / "own.yaml") == 0
    shown = capsys.readouterr().out
    assert "own: 6 nodes, 8 legal states of 64" in shown
    assert "never with" in shown


def test_check_names_labels_that_do_not_fit(call, capsys, tmp_path):
    (tmp_path / "list.txt").write_text("a.png 000000000000\nb.png 110000100002\nc.png 1\n")
    assert call("graph", "check", "ffsc", "--data", tmp_path / "list.txt") == 0
    assert "every label fits" in capsys.readouterr().out
    with (tmp_path / "list.txt").open("a") as file:
        file.write("d.png 010000000000\ne.png 11\n")
    assert call("graph", "check", "ffsc", "--data", tmp_path / "list.txt") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "list.txt, line 4: d.png: " in lines[0]
    assert "list.txt, line 5: e.png: label '11' has 2 characters" in lines[1]
    assert lines[-1].endswith("error: 2 of the labels do not fit ffsc; correct them")
    assert call("graph", "check", "ffpp", "--labels", "1010111111,1011111111") == 0
    assert call("graph", "check", "ffpp", "--labels", "1010111111,0011111111") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give show or check, and a graph"),
        (("shw", "ffsc"), "did you mean show?"),
        (("show",), "give show or check, and a graph"),
        (("show", "no.yaml"), "no.yaml: no such file"),
        (("show", "ffsc", "--labels", "1"), "go with semforge-graph check"),
        (("check", "ffsc", "--data", "no.txt"), "no.txt: no such file"),
        (("show", "{folder}/cycle.yaml"), "cycle"),
        (("show", "{folder}/big.yaml"), "1 to 20 nodes, got 21"),
    ],
)
def test_bad_graphs_are_told_in_one_line(call, capsys, tmp_path, arguments, message):
    (tmp_path / "cycle.yaml").write_text("nodes: [a, b]\nsubsumption: [[a, b], [b, a]]\n")
    (tmp_path / "big.yaml").write_text(f"nodes: {[f'n{k}' for k in range(21)]}\n")
    assert call("graph", *(word.format(folder=tmp_path) for word in arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("semforge-graph: error: ")
    assert message in error


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    for k in range(8):
        pixels = np.random.default_rng(k).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"p{k}.png")
    return folder


def test_a_set_is_made_and_shown(call, people, tmp_path, capsys):
    out = tmp_path / "set"
    arguments = ("--faces", people, "--out", out, "--count", 40, "--size", 48, "--crop", "none")
    assert call("synth", *arguments, "--kinds", "age,expression", "--unseen", "nearest") == 0
    with (out / "list.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert all((out / row["path"]).is_file() for row in rows)
    result = json.loads((out / "result.json").read_text())
    counts = {row["method"]: row for row in result["rows"]}
    for method, row in counts.items():
        own = [r["split"] for r in rows if r["method"] == method]
        assert {p: own.count(p) for p in ("train", "val", "test")} == {
            p: row[p] for p in ("train", "val", "test")
        }
    assert sum(result["metrics"]["people"].values()) == 8
    assert "<h2>Examples</h2>" in (out / "report.html").read_text()
    capsys.readouterr()
    assert call("graph", "check", "ffsc", "--data", out / "list.csv") == 0
    assert call("synth", *arguments) == 2
    assert "folder is not empty" in capsys.readouterr().err
    assert call("synth", *arguments, "--overwrite", "--families", "half", "--count", 8) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--faces", "no"), "no: no such file or folder"),
        (("--count", 0), "--count must be >= 1"),
        (("--size", 8), "--size must be in [32, 1024]"),
        (("--real-share", 1.5), "--real-share must be in [0, 1]"),
        (("--val-fraction", 0.5, "--test-fraction", 0.5), "sum to less than 1"),
        (("--n-frames", 0), "--n-frames must be >= 1"),
        (("--kinds", "hair"), "kinds must be some of"),
        (("--families", "gan"), "families must be some of"),
    ],
)
def test_bad_options_are_told_in_one_line(call, people, tmp_path, capsys, arguments, message):
    defaults = {"--faces": people, "--out": tmp_path / "out", "--crop": "none"}
    more = [x for k, v in defaults.items() if k not in arguments for x in (k, v)]
    assert call("synth", *arguments, *more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("semforge-synth: error: ")
    assert message in error


def test_help_and_cheap_checks_need_no_torch():
    code = (
        "import sys; from papercommons.cli import run_command; from semforge import cli\n"
        "for name in ('train', 'evaluate', 'predict', 'graph', 'synth'):\n"
        "    assert run_command(getattr(cli, name), prog=name, argv=['--help']) == 0\n"
        "assert run_command(cli.train, prog='t', argv=['--data', 'no.txt']) == 2\n"
        "assert 'torch' not in sys.modules and 'PIL' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "did you mean" not in done.stderr
