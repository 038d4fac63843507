from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import pytest
from cmdfd.prepared import open_prepared

CUT = ("--detector", "none", "--size", 16)


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def few(striped, tmp_path_factory):
    """A folder with the first four clips of the striped ones, and one that is broken."""
    folder = tmp_path_factory.mktemp("few")
    lines = (striped / "list.csv").read_text().splitlines()[:5]
    for name in ("val_00.mp4", "val_01.mp4", "val_02.mp4", "val_03.mp4"):
        shutil.copy(striped / name, folder)
    (folder / "list.csv").write_text("\n".join(lines))
    broken = [*lines, lines[-1].replace("val_03", "broken")]
    (folder / "broken.csv").write_text("\n".join(broken))
    (folder / "broken.mp4").write_bytes((striped / "val_03.mp4").read_bytes()[:3000])
    return folder


def test_clips_are_prepared_and_shown(run_verb, few, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_verb("prepare", few, "--out", out, *CUT) == 0
    assert "4 clips prepared, detector none, 16 pixels" in capsys.readouterr().out
    result = result_of(out)
    assert (result["metrics"]["clips"], result["metrics"]["left_out"]) == (4, 0)
    assert [row["clips"] for row in result["rows"]] == [2, 1, 1]
    assert "<h2>What was cut</h2>" in (out / "report.html").read_text()
    assert len(open_prepared(out)) == 4
    assert run_verb("audit", out / "originals.csv") == 0
    assert run_verb("prepare", few, "--out", out, *CUT) == 2
    assert "--resume" in capsys.readouterr().err
    assert run_verb("prepare", out, "--out", tmp_path / "b") == 2
    assert "is prepared already" in capsys.readouterr().err


def test_a_broken_clip_is_named_and_the_rest_kept(run_verb, few, tmp_path, capsys, no_pictures):
    out = tmp_path / "out"
    place = ("prepare", few / "broken.csv", "--root", few, "--out", out, *CUT)
    assert run_verb(*place) == 2
    error = capsys.readouterr().err
    assert "1 of 5 clips cannot be used: line 6: " in error
    assert "broken.mp4" in error
    made = sorted(out.rglob("frames.npy"))
    assert len(made) == 4
    before = [path.stat().st_mtime_ns for path in made]
    assert run_verb(*place, "--resume", "--skip-bad", "--num-workers", 1) == 0
    assert [path.stat().st_mtime_ns for path in made] == before
    assert "1 clip left out" in capsys.readouterr().out
    with (out / "defects.csv").open(newline="") as file:
        (fault,) = csv.DictReader(file)
    assert "broken.mp4" in fault["what"]
    assert run_verb(*place, "--resume", "--size", 32) == 2
    assert "cannot resume: size was 16" in capsys.readouterr().err


def test_videos_without_labels(run_verb, few, tmp_path, capsys, no_pictures):
    assert run_verb("prepare", few / "val_00.mp4", "--out", tmp_path / "out") == 2
    assert "give --label real or fake" in capsys.readouterr().err
    place = (few / "val_00.mp4", few / "val_01.mp4", "--label", "fake")
    assert run_verb("prepare", *place, "--out", tmp_path / "out", *CUT) == 0
    clips = open_prepared(tmp_path / "out")
    assert (clips.labels, clips.names) == ([1, 1], ["val_00.mp4", "val_01.mp4"])


def test_a_name_that_is_no_text(run_verb, few, tmp_path):
    odd = tmp_path / "bad\udcff.mp4"
    odd.write_bytes((few / "val_00.mp4").read_bytes())
    assert run_verb("prepare", odd, "--label", "real", "--out", tmp_path / "out", *CUT) == 0
    assert open_prepared(tmp_path / "out").entries[0].video.parent.name == "bad_"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a list, a set or a folder"),
        (("no.csv",), "no.csv: no such file or folder"),
        (("{few}", "--size", 4), "--size must be in [16, 512]"),
        (("{few}", "--face", "no"), "--face must be largest or a number"),
        (("{few}", "--num-workers", -1), "--num-workers must be >= 0"),
        (("{few}", "--root", "no"), "no such folder"),
        (("{few}", "--detector", "lpb"), "--detector"),
        (("{few}/list.csv", "--out", "{few}/list.csv"), "--out must be a folder"),
    ],
)
def test_bad_arguments_are_told_in_one_line(run_verb, few, tmp_path, capsys, arguments, message):
    words = [str(word).format(few=few) for word in arguments]
    out = [] if "--out" in words else ["--out", tmp_path / "out"]
    assert run_verb("prepare", *words, *out) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("cmdfd-prepare: error: ")
    assert message in error


def test_help_is_light():
    code = (
        "import sys; from papercommons.cli import build_parser; from cmdfd import cli\n"
        "for verb in (cli.prepare, cli.audit, cli.synth, cli.teach, cli.train):\n"
        "    build_parser(verb, 'x').format_help()\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'av', 'skimage'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
