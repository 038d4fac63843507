from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from papercommons.testing.networks import change_network
from PIL import Image
from semforge.saved import load_network


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """One person, the same twice, none; and a clip of six frames."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    one = np.asarray(Image.fromarray(data.astronaut()).resize((256, 256)))
    Image.fromarray(one).save(folder / "one.png")
    Image.fromarray(np.concatenate([one, one], axis=1)).save(folder / "two.png")
    (folder / "deeper").mkdir()
    Image.new("RGB", (100, 80), "green").save(folder / "deeper/one.png")
    return folder


@pytest.fixture(scope="module")
def clip(photos, tmp_path_factory):
    pytest.importorskip("av")
    from papercommons.video.writing import write_clip

    one = np.asarray(Image.open(photos / "one.png"))
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, [np.roll(one, 2 * shift, axis=1) for shift in range(6)], fps=5.0)
    return path


@pytest.fixture(scope="module")
def seen(call, run, photos, clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("seen") / "out"
    arguments = (photos, clip, "--checkpoint", run, "--out", out, "--n-frames", 4)
    assert call("predict", *arguments, "--heatmap", "occlusion", "--heatmap-node", "age") == 0
    return out


def test_faces_are_found_one_by_one(seen, photos, clip):
    rows = rows_of(seen / "predictions.csv")
    assert [(row["name"], row["face"], row["frames"]) for row in rows] == [
        ("one", "", ""),
        ("one_2", "1", "1"),
        ("two", "1", "1"),
        ("two", "2", "1"),
        ("clip", "1", "4"),
    ]
    assert rows[0]["prediction"] == "no face"
    metrics = result_of(seen)["metrics"]
    assert metrics["files"] == 4
    assert metrics["without_face"] == 1
    assert any("deeper/one.png: no face found" in note for note in result_of(seen)["notes"])
    lefts = sorted(float(row["left"]) for row in rows[2:4])
    assert lefts[1] - lefts[0] == pytest.approx(256, abs=6)
    for name in ("one.png", "two_face2.png", "clip_video.png", "clip_face1.png"):
        with Image.open(seen / "files" / name) as picture:
            assert picture.width > 300
    assert not (seen / "files/one_face1.png").exists()


def test_what_is_said_goes_together(seen, run):
    net, config = load_network(run)
    nodes, threshold = net.nodes, result_of(seen)["metrics"]["threshold"]
    for row in rows_of(seen / "predictions.csv")[1:]:
        p = float(row["p_fake"])
        assert (row["prediction"] == "fake") == (p >= threshold)
        named = row["altered"].split(", ")
        state = torch.tensor([[int(n in named) for n in nodes]])
        state[0, 0] = int(row["prediction"] == "fake")
        assert net.graph.is_legal(state)[0]
        assert max(float(row[f"p_{n}"]) for n in nodes) == p  # every other node needs it
        odds = np.log(p / (1 - p))
        if row["frames"] == "1":
            even = config["calibration"]["slope"] * odds + config["calibration"]["intercept"]
            assert float(row["p_calibrated"]) == pytest.approx(1 / (1 + np.exp(-even)), abs=1e-3)


def test_a_finished_run_is_resumed_without_computing(call, run, photos, clip, seen, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(seen, out)
    (out / "files/two.json").unlink()
    kept = out / "files/one_2.json"
    kept.write_text(kept.read_text().replace('"prediction": "real"', '"prediction": "fake"'))
    config = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(config.replace(str(seen), str(out)))
    arguments = (photos, clip, "--checkpoint", run, "--out", out, "--n-frames", 4)
    more = ("--heatmap", "occlusion", "--heatmap-node", "age")
    assert call("predict", *arguments, *more) == 2
    assert call("predict", *arguments, *more, "--resume") == 0
    before, after = (rows_of(folder / "predictions.csv") for folder in (seen, out))
    assert (out / "files/two.json").is_file()
    assert after[2:] == before[2:]
    assert after[1]["prediction"] == "fake"  # as noted, though altered


def test_a_run_of_another_network_is_not_resumed(call, run, photos, tmp_path, capsys):
    network, out = shutil.copytree(run, tmp_path / "network"), tmp_path / "out"
    arguments = (photos, "--checkpoint", network, "--out", out)
    assert call("predict", *arguments) == 0
    change_network(network)
    assert call("predict", *arguments, "--resume") == 2
    assert "cannot resume: weights was" in capsys.readouterr().err


def test_faces_cut_before_are_taken_whole(call, run, drawn, capsys):
    files = [drawn / f"test{k:03d}.png" for k in range(12)]
    arguments = ("--checkpoint", run, "--no-crop", "--json")
    assert call("predict", *files, *arguments) == 0
    result = json.loads(capsys.readouterr().out)
    faces = {row["file"]: row for row in result["metrics"]["faces"]}
    judged = {row["name"]: row for row in rows_of(run / "items.csv")}
    for path in files:
        row = faces[str(path)]
        assert row["p_fake"] == pytest.approx(float(judged[path.name]["p_fake"]), abs=2e-5)
        assert "left" not in row
    assert any("taken as faces already" in note for note in result["notes"])
    assert result["metrics"]["called_fake"] > 0  # and the exit code is 0


def test_nothing_is_written_without_out(call, run, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("predict", photos / "one.png", "--checkpoint", run) == 0
    assert list(tmp_path.iterdir()) == []
    assert "1 file, 1 face" in capsys.readouterr().out


def test_bad_files_are_named(call, run, photos, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    files = (photos / "one.png", tmp_path / "bad.png")
    assert call("predict", *files, "--checkpoint", run) == 2
    assert "bad.png: not a readable image" in capsys.readouterr().err
    assert call("predict", *files, "--checkpoint", run, "--skip-bad", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["left_out"] == 1
    assert any("left out" in note and "bad.png" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give pictures or videos"),
        (("no.png",), "no.png: no such file or folder"),
        (("{photos}/deeper",), "one.png: no face found; give"),
        (("{photos}", "--no-crop", "--boxes", "b.csv"), "--no-crop and --boxes exclude each other"),
        (("{photos}", "--boxes", "b.csv"), "b.csv: no such file; --boxes"),
        (("{photos}", "--resume"), "--resume goes on with the run in --out"),
        (("{photos}", "--threshold", 0), "--threshold must be in (0, 1)"),
        (("{photos}", "--n-frames", 0), "--n-frames must be >= 1"),
        (
            ("{photos}", "--heatmap-node", "ear"),
            "--heatmap-node ear: no such node; there are fake, age",
        ),
        (("{empty}",), "no pictures or videos in it"),
    ],
)
def test_bad_options_are_told_in_one_line(
    call, run, photos, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    words = [str(word).format(photos=photos, empty=tmp_path) for word in arguments]
    assert call("predict", *words, "--checkpoint", run) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("semforge-predict: error: ")
    assert message in error


def test_a_network_that_does_not_know_how_its_faces_were_cut(call, run, photos, tmp_path, capsys):
    shutil.copytree(run / "export", tmp_path / "net")
    path = tmp_path / "net/config.json"
    config = json.loads(path.read_text())
    config["crop"]["cut_by"] = None
    path.write_text(json.dumps(config))
    arguments = ("predict", photos / "one.png", "--checkpoint", tmp_path / "net")
    assert call(*arguments) == 2
    assert "does not know by what; give faces cut as those were" in capsys.readouterr().err
    assert call(*arguments, "--no-crop") == 0
