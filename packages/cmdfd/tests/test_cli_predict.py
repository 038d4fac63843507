from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from papercommons.testing.networks import change_network
from PIL import Image


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def places(striped, tmp_path_factory):
    """Three clips, a real one, a whole fake and a partial one, and a file that is no clip."""
    folder = tmp_path_factory.mktemp("clips")
    for number, name in ((8, "real"), (9, "whole"), (11, "partial")):
        shutil.copy(striped / f"test_{number:02d}.mp4", folder / f"{name}.mp4")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "real.mp4").write_bytes(b"no clip")
    (folder / "list.csv").write_text("path,label\nreal.mp4,0\n")
    return folder


@pytest.fixture(scope="module")
def seen(call, places, striped_net, tmp_path_factory):
    out = tmp_path_factory.mktemp("seen") / "out"
    words = ("--out", out, "--window", 0.8, "--hop", 0.4, "--skip-bad")
    assert call("predict", places, "--checkpoint", striped_net, *words) == 0
    return out


def test_a_bad_clip_is_named_and_the_rest_is_done(seen):
    result, rows = result_of(seen), rows_of(seen / "predictions.csv")
    assert [row["name"] for row in rows] == ["partial", "real_2", "whole"]
    assert result["metrics"]["left_out"] == 1
    assert "LEFT OUT: 1 of 4 clips" in result["notes"]
    assert any("deeper/real.mp4" in note for note in result["notes"])
    assert any("NOT CALIBRATED" in note for note in result["notes"])
    for row in rows:
        with Image.open(seen / "files" / f"{row['name']}.png") as picture:
            assert picture.width > 900


def test_a_bad_clip_is_refused_without_skip_bad(call, places, striped_net, tmp_path, capsys):
    words = ("--checkpoint", striped_net, "--out", tmp_path / "out", "--window", 0.8, "--hop", 0.4)
    assert call("predict", places, *words) == 2
    assert "deeper/real.mp4" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert call("predict", places, *words, "--resume", "--skip-bad") == 0
    assert len(rows_of(tmp_path / "out" / "predictions.csv")) == 3


def test_what_is_said_goes_together(seen):
    result = result_of(seen)
    rows = {row["name"]: row for row in rows_of(seen / "predictions.csv")}
    seconds = rows_of(seen / "curve.csv")
    scores = {name: float(row["score"]) for name, row in rows.items()}
    assert scores["whole"] > scores["partial"] > scores["real_2"]
    assert rows["whole"]["prediction"] == "fake"
    for row in rows.values():
        assert (row["prediction"] == "fake") == (float(row["score"]) > 0)
        own = [each for each in seconds if each["file"] == row["file"]]
        assert [(each["begin"], each["end"]) for each in own] == [("0.0", "1.0"), ("1.0", "2.0")]
        mean = np.mean([float(each["score"]) for each in own])
        assert float(row["score"]) == pytest.approx(mean, abs=2e-5)
        inside = np.mean([float(each["in_parts"]) for each in own])
        assert float(row["share_in_parts"]) == pytest.approx(inside, abs=0.03)
    begin, end = map(float, rows["partial"]["parts"].split("-"))
    assert abs(begin - 0.4) < 0.25
    assert abs(end - 1.2) < 0.25
    listed = {clip["name"]: clip for clip in result["metrics"]["clips"]}
    assert len(listed["whole"]["per_second"]) == 2


def test_a_finished_run_is_resumed_without_computing(
    call, places, seen, striped_net, tmp_path, capsys
):
    out = shutil.copytree(seen, tmp_path / "out")
    config = out / "config.yaml"
    config.write_text(config.read_text().replace(str(seen), str(out)))
    (out / "files/whole.json").unlink()
    note = json.loads((out / "files/real_2.json").read_text())
    note["curves"]["margin"] = [7.0] * 50
    (out / "files/real_2.json").write_text(json.dumps(note))
    how = ("--window", 0.8, "--hop", 0.4, "--skip-bad")
    words = ("--out", out, *how, "--checkpoint", striped_net)
    assert call("predict", places, *words) == 2
    assert call("predict", places, *words, "--resume") == 0
    before, after = (rows_of(folder / "predictions.csv") for folder in (seen, out))
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1]["score"] == "7.0"  # as noted, though altered
    assert call("predict", places, *words, "--resume", "--hop", 0.8) == 2
    assert "cannot resume: hop was 0.4" in capsys.readouterr().err
    other = shutil.copytree(striped_net, tmp_path / "net")
    change_network(other)
    config.write_text(config.read_text().replace(str(striped_net), str(other)))
    words = (*words[:-1], other)
    assert call("predict", places, *words, "--resume") == 2
    assert "cannot resume: weights was" in capsys.readouterr().err


def test_curves_go_to_a_file_and_nothing_else_is_written(
    call, places, striped_net, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = (places / "whole.mp4", "--checkpoint", striped_net, "--curve", "curve.csv")
    assert call("predict", *words, "--threshold", 99, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["called_fake"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["curve.csv"]
    assert len(rows_of(tmp_path / "curve.csv")) == 2
    assert call("predict", *words) == 2
    assert "curve.csv: exists" in capsys.readouterr().err


def test_lists_and_another_split_of_sound_and_picture(call, striped, striped_net, tmp_path, capsys):
    """A list names its clips once; their names are those of the list."""
    (tmp_path / "few.csv").write_text("path,label\ntest_08.mp4,0\ntest_09.mp4,1\n")
    words = ("--root", striped, "--checkpoint", striped_net, "--json")
    assert call("predict", tmp_path / "few.csv", striped / "test_09.mp4", *words) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in result["rows"]] == ["test_08.mp4", "test_09.mp4"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Clips that cannot be used."""
    pytest.importorskip("av")
    from papercommons.video.writing import write_clip

    folder, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    frames = np.full((30, 64, 64), 90, np.uint8)
    sound = (0.1 * rng.standard_normal(640 * 30)).astype(np.float32)
    write_clip(folder / "mute.mp4", frames)
    write_clip(folder / "silent.mp4", frames, waveform=0 * sound)
    write_clip(folder / "short.mp4", frames[:3], waveform=sound[: 640 * 3])
    write_clip(folder / "whole.mp4", frames, waveform=sound)
    whole = (folder / "whole.mp4").read_bytes()
    (folder / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("mute", (), "no audio stream"),
        ("silent", (), "silent"),
        ("short", (), "expected at least 5"),
        ("torn", (), "torn.mp4"),
        ("whole", ("--detector", "lbp"), "no face found"),
    ],
)
def test_clips_that_cannot_be_used_are_told_in_one_line(
    call, odd, striped_net, capsys, name, words, message
):
    assert call("predict", odd / f"{name}.mp4", "--checkpoint", striped_net, *words) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("cmdfd-predict: error: ")
    assert message in error[-1]
    assert len(error) == 1  # said once


def test_prepared_clips_whose_sound_changed_are_looked_at_again(
    call, talking_set, tiny, tmp_path, capsys
):
    from cmdfd.prepared import crop_settings
    from cmdfd.saved import save_network

    clips = shutil.copytree(talking_set, tmp_path / "clips")
    tells_nothing = {"slope": 0.0, "intercept": 0.0, "fake": 4, "real": 4}
    crop = crop_settings("none", 16, swapped=False)
    about = {"size": 16, "crop": crop, "calibration": tells_nothing}
    net = save_network(tiny, tmp_path / "net", **about)
    sound = clips / "clips" / "train-00" / "sound.npy"
    head, *rows = (clips / "list.csv").read_text().splitlines()
    (clips / "list.csv").write_text(f"{head}\n{rows[0]}\n")
    words = (clips, "--checkpoint", net, "--out", tmp_path / "out")
    assert call("predict", *words) == 0
    assert "TELL NOTHING" in capsys.readouterr().out
    before, hashed = rows_of(tmp_path / "out/predictions.csv"), result_of(tmp_path / "out")
    np.save(sound, np.load(sound)[::-1] // 2)
    assert call("predict", *words, "--resume") == 0
    assert rows_of(tmp_path / "out/predictions.csv")[0]["score"] != before[0]["score"]
    assert result_of(tmp_path / "out")["data_hash"] != hashed["data_hash"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give clips, e.g. cmdfd-predict clip.mp4"),
        (("no.mp4",), "no.mp4: no such file or folder"),
        (("{places}", "--checkpoint", "{places}"), "no saved network"),
        (("{places}", "--resume"), "--resume goes on with the run in --out"),
        (("{places}", "--curve", "curve.json"), "--curve takes a file that ends in .csv"),
        (("{places}", "--threshold", "inf"), "--threshold: expected float"),
        (("{places}/list.csv", "--curve", "{places}/list.csv", "--overwrite"), "would replace"),
        (("{net}",), "no clips there"),
        (("{places}/deeper",), "deeper/real.mp4: "),
    ],
)
def test_bad_options_are_told_in_one_line(
    call, places, striped_net, tmp_path, capsys, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    words = [str(word).format(places=places, net=striped_net) for word in words]
    more = () if "--checkpoint" in words else ("--checkpoint", striped_net)
    assert call("predict", *words, *more) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch():
    code = (
        "import sys; from cmdfd import cli; sys.argv[1:] = ['--help']\n"
        "for main in (cli.main_eval, cli.main_predict):\n"
        "    try: main()\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--curve" in done.stdout
