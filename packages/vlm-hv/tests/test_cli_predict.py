from __future__ import annotations

import csv
import io
import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image
from vlm_hv import prompts
from vlm_hv.records import read_records

FEW = ("--split-by", "writers", "--limit", 6)


def by_ink(server):
    """Yes where both samples are about as dark."""

    def reply(body):
        sent = [server.ink(png) for png in server.sent_pictures(body)] or [0, 0]
        return "Yes" if abs(sent[0] - sent[-1]) < 4 else "No"

    return reply


def result_of(folder):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads((folder / "result.json").read_text(), parse_constant=refuse)


def test_a_run_is_a_folder_with_everything_in_it(ask, server, tmp_path, monkeypatch, capsys):
    key = "sk-secret-0123456789"
    monkeypatch.setenv("OUR_KEY", key)
    server.reply = by_ink(server)
    out = tmp_path / "run"
    given = ("--mode", "direct", "--api-key-env", "OUR_KEY", "--cache", tmp_path / "cache")
    assert ask(*FEW, *given, "--out", out, "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    records = read_records(out / "predictions.jsonl")
    assert len(records) == 6
    assert [r["label"] for r in records].count(1) == 3
    assert result["metrics"]["counts"]["pairs"] == 6
    assert {"accuracy_over_all", "accuracy_over_answered", "coverage"} <= result["metrics"].keys()
    assert result["settings"]["seed"] == 0
    assert result["data_hash"]
    assert all(header["authorization"] == f"Bearer {key}" for header in server.headers)
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "<script" not in page
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert key.encode() not in written
    assert key not in printed.out + printed.err


def test_labels_turn_the_swap_on_and_the_cost_is_told(ask, server, words, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="papercommons"):
        assert ask(*FEW, "--mode", "direct", "--out", tmp_path / "both") == 0
    assert "6 pairs, 2 requests each, in both orders (--no-swap halves that): 12" in caplog.text
    assert len(server.requests) == 12
    assert "doubles the cost" in " ".join(result_of(tmp_path / "both")["notes"])
    server.requests.clear()
    assert ask(*FEW, "--mode", "direct", "--no-swap", "--out", tmp_path / "one") == 0
    assert len(server.requests) == 6
    server.requests.clear()
    (tmp_path / "p.csv").write_text("known,questioned\n00_0.png,01_0.png\n00_0.png,02_1.png\n")
    unlabelled = ("--pairs", tmp_path / "p.csv", "--out", tmp_path / "case")
    assert ask("--mode", "direct", *unlabelled) == 0
    assert len(server.requests) == 2
    found = result_of(tmp_path / "case")
    assert [row["prediction"] for row in found["rows"]] == ["same", "same"]
    assert found["metrics"]["predicted_same"] == 2


def test_the_limit_draws_both_kinds_and_follows_the_seed(ask, tmp_path):
    chosen = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        out = tmp_path / name
        assert ask("--mode", "direct", "--limit", 8, "--seed", seed, "--out", out) == 0
        records = read_records(out / "predictions.jsonl")
        assert sum(record["label"] for record in records) == 4
        chosen.append([(r["known"], r["questioned"]) for r in records])
    assert chosen[0] == chosen[1] != chosen[2]


def test_splits_share_no_writer(ask, tmp_path):
    writers = []
    for part in ("test", "val", "train"):
        given = ("--mode", "direct", "--limit", 12, "--split", part, "--ablate", "text-only")
        assert ask(*given, "--out", tmp_path / part) == 0
        records = read_records(tmp_path / part / "predictions.jsonl")
        writers.append({writer for record in records for writer in record["writers"]})
    test, val, train = writers
    assert not test & val
    assert not (test | val) & train


def test_going_on_asks_for_nothing_twice(ask, server, tmp_path, capsys):
    out = tmp_path / "run"
    given = (*FEW, "--mode", "direct", "--no-swap", "--out", out)
    assert ask(*given, "--max-tokens-total", 3000, "--concurrency", 1) == 0
    assert "PAIRS ARE MISSING" in capsys.readouterr().out
    done = len(server.requests)
    assert 0 < done < 6
    assert ask(*given) == 2
    assert "folder is not empty; pass --resume, --overwrite" in capsys.readouterr().err
    assert ask(*given, "--resume") == 0
    assert len(server.requests) == 6
    assert len(read_records(out / "predictions.jsonl")) == 6
    assert "1 x" not in capsys.readouterr().out
    assert ask(*given, "--resume", "--temperature", 0.5) == 2
    assert "cannot resume: temperature was 0.0 and is now 0.5" in capsys.readouterr().err
    assert ask(*given, "--overwrite") == 0
    assert len(server.requests) == 12


def test_a_run_that_never_began_is_in_nobodys_way(ask, server, tmp_path, capsys):
    server.script = [(401, {}, b'{"error": {"message": "bad key"}}')]
    given = (*FEW, "--mode", "direct", "--out", tmp_path / "run")
    assert ask(*given) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "the first request failed: 401: the key was refused" in line
    assert ask(*given) == 0


def test_a_server_that_breaks_down_ends_the_run(ask, server, tmp_path, capsys):
    server.script = [(200, {}, server.completion({"model": "m"})), *[(400, {}, b"no")] * 20]
    given = ("--mode", "direct", "--limit", 30, "--no-swap", "--out", tmp_path / "run")
    assert ask("--split", "all", *given, "--concurrency", 1) == 1
    assert "20 requests failed in a row, the last: 400: no" in capsys.readouterr().err
    assert len(read_records(tmp_path / "run" / "predictions.jsonl")) == 21
    assert ask("--split", "all", *given, "--resume") == 0


def test_repeats_are_other_draws_and_their_spread_is_told(ask, server, tmp_path, capsys):
    count = iter(range(1000))
    server.reply = lambda body: "Yes" if next(count) % 3 else "No"
    given = ("--mode", "direct", "--no-swap", "--repeats", 3, "--out", tmp_path / "run")
    assert ask(*FEW, *given, "--concurrency", 1) == 0
    assert "3 repeats: accuracy over all pairs" in " ".join(capsys.readouterr().out.split())
    seeds = [body["seed"] for body in server.requests]
    assert sorted(set(seeds)) == [0, 1000, 2000]
    assert len(result_of(tmp_path / "run")["metrics"]["repeats"]) == 3
    for name in ("predictions.jsonl", "predictions_2.jsonl", "predictions_3.jsonl"):
        assert len(read_records(tmp_path / "run" / name)) == 6


@pytest.mark.parametrize("kind", ["blank", "shuffle", "text-only"])
def test_controls_are_said_loudly(ask, server, kind, tmp_path, capsys):
    given = ("--mode", "direct", "--no-swap", "--ablate", kind, "--out", tmp_path / "run")
    assert ask(*FEW, *given) == 0
    assert "CONTROL: " in capsys.readouterr().out
    sent = [server.sent_pictures(body) for body in server.requests]
    if kind == "text-only":
        assert not any(sent)
    elif kind == "blank":
        pixels = [np.asarray(Image.open(io.BytesIO(png))) for pair in sent for png in pair]
        assert all((picture == 255).all() for picture in pixels)
    else:
        records = read_records(tmp_path / "run" / "predictions.jsonl")
        assert all(
            r["images"][0]["name"] != r["known"] or r["images"][1]["name"] != r["questioned"]
            for r in records
        )


def test_the_checklist_is_scored_against_the_codes(ask, server, words, tmp_path, capsys):
    data = tmp_path / "words"
    shutil.copytree(words, data)
    features = prompts.load("forensic_v1").features
    names = [f"w{w:02d}/{w:02d}_{k}.png" for w in range(8) for k in range(4)]
    with (data / "features15.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", *(feature.name for feature in features)])
        table.writerows([[name, *(min(f.answers) for f in features)] for name in names])
    first = {f.name: f.answers[min(f.answers)] for f in features}
    wrong = first | {"tilt": "tilted", "slantness": "no such answer"}
    server.reply = lambda body: json.dumps(wrong)
    given = ("--data", data, *FEW, "--checklist", "--out", tmp_path / "run")
    assert ask(*given) == 0
    images = len(server.requests)
    assert all(len(server.sent_pictures(body)) == 1 for body in server.requests)
    rows = {row["feature"]: row for row in result_of(tmp_path / "run")["rows"]}
    assert len(rows) == 15
    assert rows["tilt"]["accuracy"] == 0
    assert rows["slantness"]["answered"] == 0
    assert rows["pen_pressure"]["accuracy"] == 1
    assert rows["pen_pressure"]["samples"] == images
    assert ask(*given, "--resume") == 0
    assert len(server.requests) == images
    lines = (tmp_path / "run" / "checklist.jsonl").read_text().splitlines()
    (tmp_path / "run" / "checklist.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:9])
    assert ask(*given, "--resume") == 0
    assert len(server.requests) == images + 1


def test_pairs_files(call, words, tmp_path, capsys):
    out = tmp_path / "p.csv"
    assert call("pairs", "--data", words, "--split", "all", "--limit", 10, "--out", out) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows].count("1") == 5
    assert call("pairs", "--data", words, "--out", out) == 2
    assert "the file exists; pass --overwrite" in capsys.readouterr().err
    val, train = tmp_path / "val.csv", tmp_path / "train.csv.gz"
    for part, path in (("val", val), ("train", train)):
        assert call("pairs", "--data", words, "--split", part, "--out", path) == 0
    capsys.readouterr()
    assert (
        call(
            "pairs",
            "--data",
            words,
            "--max-per-writer",
            1,
            "--split",
            "train",
            "--out",
            train,
            "--overwrite",
            "--json",
        )
        == 0
    )
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["same_writer_pairs"] == metrics["writers"]


def test_two_files_are_compared(call, server, words, tmp_path, capsys):
    box = [0.1, 0.2, 0.5, 0.8]
    finding = {"feature": "slant", "known": "right", "questioned": "left"}
    finding |= {"known_box": box, "questioned_box": None}
    said = {"findings": [finding], "explanation": "It leans <b>left</b>.", "probability": 0.25}
    server.reply = lambda body: json.dumps(said | {"decision": "different"})
    images = (words / "w00" / "00_0.png", words / "w01" / "01_0.png")
    given = (*images, "--model", "fake", "--backend", "openai", "--base-url", server.url)
    out = tmp_path / "out"
    assert call("compare", *given, "--mode", "json", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "01_0.png: different writers" in " ".join(printed.split())
    assert "1. slant: known right; questioned left" in printed
    assert len(server.requests) == 2
    page = (out / "report.html").read_text()
    assert "It leans &lt;b&gt;left&lt;/b&gt;." in page
    assert result_of(out)["metrics"]["score"] == 0.25
    assert call("compare", *given, "--mode", "json", "--out", out) == 2
    server.script = [(400, {}, b"this model takes no image")] * 2
    capsys.readouterr()
    assert call("compare", *given) == 2
    assert "choose a vision-language model" in capsys.readouterr().err
