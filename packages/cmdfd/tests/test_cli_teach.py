from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from cmdfd.teaching_saved import open_teacher
from papercommons.files import write_csv

SIZES = ("--dim", 16, "--width", 2, "--epochs", 1, "--frames-per-batch", 60)


def test_letters_of_grid(run_verb, talking_set, tmp_path, capsys, no_pictures):
    folder = tmp_path / "grid"
    (folder / "clips").mkdir(parents=True)
    shutil.copy(talking_set / "facts.json", folder)
    with (talking_set / "list.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["ENtire_Label"] == "0"][:6]
    names = ("bbaf2n", "brbk7n", "lbax4n", "lrwp9a", "sbia1a", "swiz3n")
    for row, name in zip(rows, names, strict=True):
        place = folder / "clips" / name
        place.mkdir()
        np.save(place / "frames.npy", np.random.default_rng(0).integers(0, 256, (40, 16, 16), "u1"))
        np.save(place / "sound.npy", np.ones(640 * 40, np.int16))
        row |= {"ID_Name": f"{name}.mpg", "Video_Path": f"clips/{name}/frames.npy"}
        row |= {"Audio_Path": f"clips/{name}/sound.npy", "Frame_Len": "40", "Audio_Len": "25600"}
        row |= {"Split": "val" if name[0] == "s" else "train", "Face": name}
    write_csv(folder / "list.csv", rows)
    options = ("--data", folder, "--labels", "grid", "--no-augment", *SIZES)
    assert run_verb("teach", *options, "--out", tmp_path / "out") == 0
    assert "letters by CTC, 28 classes" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]
    assert metrics["val_letter_error_rate_mouth"] > 0
    assert open_teacher(str(tmp_path / "out")).classes == 28


def test_a_lip_reader_after_a_recogniser(
    run_verb, talking_set, recogniser, tmp_path, capsys, no_pictures
):
    options = ("--data", talking_set, "--hf-asr", recogniser, *SIZES)
    assert run_verb("teach", *options, "--out", tmp_path / "out") == 0
    metrics = json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]
    assert "val_accuracy_voice" not in metrics
    assert 0 <= metrics["val_accuracy_mouth"] <= 1
    assert open_teacher(str(tmp_path / "out")).classes == 6
    (recogniser / "config.json").rename(recogniser / "gone.json")
    try:
        assert run_verb("teach", *options, "--out", tmp_path / "b") == 2
    finally:
        (recogniser / "gone.json").rename(recogniser / "config.json")
    assert "no recogniser" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "no"), "no such file or folder"),
        (("--dim", 12), "--dim must be a multiple of 8"),
        (("--devices", "2"), "on one device"),
        (("--compile",), "leave out --compile"),
        (("--stream", "visual"), "--stream"),
        (("--labels", "grid"), "not named as clips of GRID"),
        (("--epochs", 0), "--epochs must be >= 1"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    run_verb, talking_set, tmp_path, capsys, arguments, message
):
    data = () if "--data" in arguments else ("--data", talking_set)
    assert run_verb("teach", *data, *arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("cmdfd-teach: error: ")
    assert message in error
