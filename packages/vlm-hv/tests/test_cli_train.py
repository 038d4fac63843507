from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
from vlm_hv.records import read_records

SIZE = ("--size", 32, "--width", 16, "--layers", 1, "--max-pairs", 32)
SMALL = (*SIZE, "--patch-size", 8, "--tower-steps", 0)


@pytest.fixture(scope="module")
def trained(call, words, tmp_path_factory):
    """A tiny model trained for one epoch; tests leave it as it is."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    given = ("--data", words, "--tiny", *SMALL, "--epochs", 1, "--out", out)
    assert call("train", *given, "--accelerator", "cpu") == 0
    return out


def plain(folder, name="predictions.jsonl"):
    """What was decided on each pair."""
    records = read_records(folder / name)
    return [(r["known"], r["questioned"], r["prediction"]) for r in records], np.array(
        [r["score"] for r in records]
    )


def test_a_run_holds_all_that_is_needed(trained):
    files = {path.name for path in trained.iterdir()}
    wanted = {"config.yaml", "metrics.csv", "last.ckpt", "best.ckpt", "export", "predictions.jsonl"}
    assert wanted | {"predictions_val.jsonl", "result.json", "report.html"} <= files
    metrics = json.loads((trained / "result.json").read_text())["metrics"]
    assert 0 <= metrics["val_auc"] <= 1
    assert metrics["training_pairs"] == 32
    assert (metrics["epochs"], metrics["left_out"]) == (1, 0)
    assert metrics["parameters"] > 1000
    assert metrics["counts"]["pairs"] == len(read_records(trained / "predictions.jsonl"))
    judged, val = (
        {w for r in read_records(trained / name) for w in r["writers"]}
        for name in ("predictions.jsonl", "predictions_val.jsonl")
    )
    assert not judged & val


def test_prediction_repeats_the_numbers_of_training(call, trained, words, tmp_path, capsys):
    given = ("--data", words, "--model", trained, "--accelerator", "cpu")
    assert call("predict", *given, "--out", tmp_path / "test") == 0
    assert "asked the question it was trained on" in capsys.readouterr().out
    for folder, name, other in (
        (tmp_path / "test", "predictions.jsonl", "predictions.jsonl"),
        (tmp_path / "val", "predictions.jsonl", "predictions_val.jsonl"),
    ):
        if folder.name == "val":
            assert call("predict", *given, "--split", "val", "--out", folder, "--quiet") == 0
        (pairs, scores), (theirs, others) = plain(folder, name), plain(trained, other)
        assert [pair[:2] for pair in pairs] == [pair[:2] for pair in theirs]
        assert scores == pytest.approx(others, abs=1e-4)
    val = f"{tmp_path / 'val'},{trained / 'predictions_val.jsonl'}"
    capsys.readouterr()
    given = (tmp_path / "test", trained, "--calibration", val, "--bootstrap", 20, "--json")
    assert call("eval", *given) == 0
    one, other = json.loads(capsys.readouterr().out)["rows"]
    assert one["system"] != other["system"]
    assert one["AUC"] == other["AUC"]


def test_scores_are_calibrated_probabilities_of_the_saved_verifier(trained, words):
    from papercommons.data.words import open_words
    from vlm_hv.verifier import VLMVerifier

    verifier, opened = VLMVerifier.from_pretrained(trained, device="cpu"), open_words(words)
    records = read_records(trained / "predictions.jsonl")[:4]
    known, questioned = (
        [opened.read(opened.index(record[side])) for record in records]
        for side in ("known", "questioned")
    )
    odds = verifier.calibration.llr(verifier.score(known, questioned, swap=True))
    expected = (1 / (1 + np.exp(-odds))).mean(axis=0)
    assert [record["score"] for record in records] == pytest.approx(expected, abs=1e-4)


def test_training_is_judged_with_its_own_val_pairs(call, trained, capsys):
    val = trained / "predictions_val.jsonl"
    assert call("eval", trained, "--calibration", val, "--bootstrap", 20, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert np.isfinite(metrics["calibrated_cllr"])


def test_options_that_do_not_fit_a_saved_verifier(call, trained, words, tmp_path, capsys):
    given = ("--data", words, "--model", trained, "--accelerator", "cpu")
    out = ("--out", tmp_path / "out")
    for options, message in (
        (("--layout", "concat"), "was trained with two; leave it out"),
        (("--repeats", 2), "--repeats of a greedy local model are all alike"),
        (("--accelerator", "gpu"), "there is no CUDA device here"),
    ):
        assert call("predict", *given, *options, *out) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_one_pair_and_a_page_of_many(call, trained, words, tmp_path, capsys):
    images = (words / "w00" / "00_0.png", words / "w01" / "01_0.png")
    given = ("--model", trained, "--accelerator", "cpu", "--out", tmp_path / "one")
    assert call("compare", *images, *given) == 0
    assert "score for same writer" in capsys.readouterr().out
    out = tmp_path / "page"
    assert call("report", trained, "--data", words, "--count", 2, "--out", out) == 0
    page = (out / "report.html").read_text()
    assert "Most certain of the right" in page
    assert "in truth" in page
    assert "differs from what was sent" not in page
    assert page.count("<img") == sum(
        row["pairs shown"] for row in json.loads((out / "result.json").read_text())["rows"]
    )


def test_a_dry_run_writes_nothing(call, words, tmp_path):
    given = ("--data", words, "--tiny", *SMALL, "--accelerator", "cpu", "--dry-run")
    assert call("train", *given, "--out", tmp_path / "run") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed (vlm-hv[local])")
def test_an_adapter_of_a_saved_model(call, trained, words, tmp_path, capsys):
    given = ("--data", words, "--model", trained / "export", "--max-pairs", 8, "--epochs", 1)
    given = (*given, "--test-limit", 4, "--accelerator", "cpu", "--lora-r", 2)
    assert call("train", *given, "--out", tmp_path / "lora") == 0
    assert (tmp_path / "lora" / "export" / "adapter_model.safetensors").is_file()
    assert len(read_records(tmp_path / "lora" / "predictions.jsonl")) == 4
    assert call("train", *given, "--out", tmp_path / "lora") == 2
    assert "folder is not empty; pass --resume last" in capsys.readouterr().err


def test_lightnings_own_command_line(trained, words, monkeypatch, capsys):
    import vlm_hv.__main__

    small = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--model.tune=full"]
    small.append("--trainer.logger=false")
    model = [f"--model.verifier={trained / 'export'}", f"--data.data={words}"]
    monkeypatch.setattr("sys.argv", ["vlm_hv", "fit", *model, *small, "--data.batch_size=4"])
    vlm_hv.__main__.main()


def test_the_tower_is_taught_first_then_stays(call, words, tmp_path):
    from papercommons.checkpoint import read_torch_file
    from vlm_hv.tiny import tiny_paligemma
    from vlm_hv.verifier import VLMVerifier

    given = ("--data", words, "--tiny", *SIZE, "--tower-steps", 2, "--test-limit", 4)
    assert (
        call("train", *given, "--epochs", 1, "--accelerator", "cpu", "--out", tmp_path / "t") == 0
    )
    model = VLMVerifier.from_pretrained(tmp_path / "t", device="cpu").model
    start = tiny_paligemma(size=32, patch_size=16, width=16, layers=1, seed=0)[0]
    tower, before = (m.model.vision_tower.state_dict() for m in (model, start))
    assert any(not value.equal(before[name]) for name, value in tower.items())
    groups = read_torch_file(tmp_path / "t" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    trained = sum(len(group["params"]) for group in groups)
    in_tower = len(list(model.model.vision_tower.parameters()))
    assert trained == len(list(model.parameters())) - in_tower
