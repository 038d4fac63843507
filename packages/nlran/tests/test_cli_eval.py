import json

import pytest
from nlran.phantoms import write_phantoms


def test_evaluation_repeats_the_numbers_of_training(call, run, phantoms, tmp_path):
    out = tmp_path / "eval"
    arguments = ("--checkpoint", run, "--accelerator", "cpu", "--out", out)
    assert call("eval", "--data", phantoms / "ct", *arguments) == 0
    trained = json.loads((run / "result.json").read_text())["metrics"]
    judged = json.loads((out / "result.json").read_text())["metrics"]
    for name in ("accuracy", "macro_auc", "nll", "ece"):
        assert judged[name] == pytest.approx(trained[name], abs=1e-6)
    assert (out / "items.csv").read_text() == (run / "items.csv").read_text()


def test_evaluation_of_strange_scans_needs_split_all(call, run, tmp_path, capsys):
    write_phantoms(tmp_path, 6, seed=9, size=24)
    arguments = ("--data", tmp_path / "ct", "--checkpoint", run / "export", "--accelerator", "cpu")
    assert call("eval", *arguments) == 2
    assert "pass --split all" in capsys.readouterr().err
    assert call("eval", *arguments, "--split", "all", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["scans"] == 6


@pytest.mark.parametrize(("split", "said"), [("train", "THESE ARE"), ("all", "12 OF 18 SCANS ARE")])
def test_evaluating_training_scans_is_said_loudly(call, run, phantoms, split, said, capsys):
    arguments = ("--data", phantoms / "ct", "--checkpoint", run, "--accelerator", "cpu")
    assert call("eval", *arguments, "--split", split) == 0
    assert said in capsys.readouterr().out


def test_a_set_that_lacks_a_class_is_judged_with_the_macro_numbers_undefined(
    call, run, phantoms, tmp_path, capsys
):
    for name in ("NCP", "Normal"):
        (tmp_path / name).mkdir()
        path = next((phantoms / "ct" / name).iterdir())
        (tmp_path / name / path.name).write_bytes(path.read_bytes())
    arguments = ("--data", tmp_path, "--checkpoint", run, "--split", "all", "--accelerator", "cpu")
    assert call("eval", *arguments, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["macro_auc"] is None
    assert any("macro numbers are not defined" in note for note in result["notes"])
    assert [row["scans"] for row in result["metrics"]["per_class"]] == [1, 0, 1]


def test_evaluation_says_sensitivity_at_the_specificity_asked_for(call, run, phantoms, capsys):
    arguments = ("--data", phantoms / "ct", "--checkpoint", run, "--accelerator", "cpu")
    assert call("eval", *arguments, "--split", "train", "--specificity", "0.5") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("at 50% specificity (a point of the ROC curve of these scans") == 3
