"""`d-tiil-localize` and `d-tiil-score` over a tiny, untrained folder: files and bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")

from d_tiil import AlignmentSettings, Calibration, EditSettings, MapSettings
from d_tiil.calibration import SIGNS
from d_tiil.opening import quantity_hashes
from d_tiil.options import HelperOptions, given_phrases

CAPTION = "a red circle left of a blue square on a black background"


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def given(folder, image, tmp_path_factory):
    """The arguments of a plain run."""
    place = tmp_path_factory.mktemp("given")
    Image.fromarray(image).save(place / "in.png")
    return ("--model", folder, "--image", place / "in.png", "--caption", CAPTION)


def test_the_folder_holds_what_the_pipeline_gives(call, given, pipe, image, tmp_path, capsys):
    assert call("localize", *given, "--out", tmp_path / "out", "--seed", 3, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    done = pipe(image, CAPTION, seed=3)
    assert (pixels(tmp_path / "out/mask.png") == 255 * done.mask).all()
    levels = np.kron(done.final.values, np.ones((2, 2)))  # there is no blur
    assert (pixels(tmp_path / "out/map.png") == levels).all()
    assert (pixels(tmp_path / "out/edited.png") == np.asarray(done.edited)).all()
    assert pixels(tmp_path / "out/overlay.png").shape == (256, 256, 3)
    result = result_of(tmp_path / "out")
    assert result == told
    facts = result["metrics"]
    assert facts["score"] == pytest.approx(done.score)
    assert facts["box"] == list(done.box)
    assert [word["text"] for word in facts["words"]] == [word.text for word in done.words]
    assert facts["alignment"]["losses"] == pytest.approx(done.aligned.losses.tolist())
    assert result["settings"]["locate"] == done.settings.to_dict()
    assert result["rows"][0]["word"] == done.words[0].text
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("data:image/png;base64") == 4
    assert f"[{done.words[0].text}]" in page


def test_options_reach_the_method(call, given, tmp_path):
    asked = ("--map", "trajectory", "--maps", 1, "--align-steps", 1, "--word-scorer", "attention")
    more = ("--first-step-only", "--words", "red,Blue Square", "--threshold", 0.6)
    assert call("localize", *given, *asked, *more, "--out", tmp_path / "out") == 0
    result = result_of(tmp_path / "out")
    method = result["settings"]["locate"]
    assert method["maps"]["kind"] == "trajectory"
    assert (method["maps"]["draws"], method["alignment"]["steps"]) == (1, 1)
    assert (method["scorer"], method["threshold"]) == ("attention", 0.6)
    assert method["pairs"] == 3  # as the model's folder has it
    assert {word["text"] for word in result["metrics"]["candidates"]} == {"red", "blue square"}
    assert not (tmp_path / "out/edited.png").exists()
    assert result["metrics"]["text_denoising"] is None
    again = ("--config", tmp_path / "out/config.yaml", "--out", tmp_path / "again")
    assert call("localize", *again) == 0
    assert result_of(tmp_path / "again")["metrics"]["words"] == result["metrics"]["words"]


def test_given_words_are_meant_wherever_they_stand():
    found = given_phrases("A red box, a blue box", ["BOX", "red", "box"])
    assert [tuple(phrase) for phrase in found] == [
        ("red", 2, 5),
        ("box", 6, 9),
        ("box", 18, 21),
    ]


def test_a_calibration_decides(call, given, tmp_path):
    sure = Calibration("relative_gap", 1.0, 0.0, 0.0, 0.4)
    sure.save(tmp_path / "calibration.json")
    asked = (*given, "--first-step-only", "--calibration", tmp_path)
    assert call("localize", *asked, "--out", tmp_path / "out") == 0
    result = result_of(tmp_path / "out")
    assert result["metrics"]["consistent"] is True
    assert "judged consistent" in result["notes"][0]
    assert not pixels(tmp_path / "out/mask.png").any()
    assert call("score", *given, "--calibration", tmp_path / "calibration.json") == 0


def test_a_calibration_of_another_model_is_refused(call, given, tmp_path, capsys):
    other = Calibration("gap", 1.0, 0.0, 50.0, made_with="0123456789abcdef")
    other.save(tmp_path / "calibration.json")
    assert call("score", *given, "--calibration", tmp_path / "calibration.json") == 2
    assert "was made with another model" in capsys.readouterr().err


def test_a_calibration_holds_for_what_its_quantity_depends_on(folder, quick):
    def hashes(depth="full", how=quick, clip=str(folder), **models):
        return quantity_hashes("0", how, HelperOptions(clip_model=clip, **models), depth)

    plain = hashes()
    assert set(plain) == set(SIGNS)
    assert hashes(how=replace(quick, max_rows=1, scorer="attention")) == plain
    changes = {
        "alignment": hashes(how=replace(quick, alignment=AlignmentSettings(steps=1))),
        "pairs": hashes(how=replace(quick, pairs=5)),
        "maps": hashes(how=replace(quick, maps=MapSettings(draws=1))),
        "edit": hashes(how=replace(quick, edit=EditSettings(steps=1))),
        "inpainting": hashes(inpaint_model=str(folder)),
        "threshold": hashes(how=replace(quick, threshold=0.5)),
        "depth": hashes("first"),
        "clip": hashes(clip="a/b"),
    }
    gap, edited = {"gap", "relative_gap"}, {"clip_edit", "clip_region"}
    assert {name: {q for q in plain if new[q] != plain[q]} for name, new in changes.items()} == {
        "alignment": gap | edited,
        "pairs": gap,
        "maps": edited,
        "edit": edited,
        "inpainting": edited,
        "threshold": {"clip_region"},
        "depth": {"clip_region"},
        "clip": edited | {"clip_pair"},
    }
    assert hashes(clip=None) == {name: plain[name] for name in gap}


def test_the_score_alone(call, given, pipe, image, tmp_path, capsys):
    assert call("score", *given, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    done = pipe(image, CAPTION, depth="score")
    assert told["metrics"]["score"] == pytest.approx(done.score)
    assert told["files"] == {}
    assert call("score", *given, "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("config.yaml", "report.html", "result.json")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--caption", "  "), "--caption is empty"),
        (("--caption", "of the and"), "has no word that an image can contradict"),
        (("--caption", "red " * 40), "is longer than the 16 tokens"),
        (("--image", "nowhere.png"), "nowhere.png: no such file"),
        (("--model", "nowhere"), "nowhere: no such folder"),
        (("--words", "dog"), "'dog' does not stand in the caption"),
        (("--words", ""), "--words is empty"),
        (("--caption", "red \udcff"), "--caption is not valid Unicode"),
        (("--caption", "red " * 6000), "--caption has 24,000 characters"),
        (("--word-scorer", "clip"), "--word-scorer clip needs --clip-model"),
        (("--preset", "reference"), "--word-scorer clip needs --clip-model"),
        (("--clip-model", "nowhere"), "nowhere: no such folder"),
        (("--clip-model", "nowhere/"), "nowhere/: no such folder, and not a hub id"),
        (("--inpaint-model", "nowhere"), "nowhere: no such folder"),
        (("--calibration", "nowhere.json"), "nowhere.json: not a readable calibration"),
        (("--settings", "nowhere.json"), "nowhere.json: not readable settings"),
        (("--align-steps", -1), "--align-steps: steps must be >= 0"),
        (("--threshold", 1), "--threshold: threshold must be in (0, 1)"),
        (("--maps", 0), "--maps: draws must be >= 1"),
        (("--guidance", -1), "--guidance: guidance must be a number >= 0"),
        (("--edit-guidance", -1), "--edit-guidance: guidance must be a number >= 0"),
        (("--edit-steps", 1001), "the model has 1000 timesteps"),
        (("--dtype", "float16"), "--dtype float16 needs a GPU"),
        (("--seed", -1), "--seed must be in"),
    ],
)
def test_bad_input(call, given, tmp_path, capsys, arguments, message):
    options = dict(zip(given[::2], given[1::2], strict=True))
    options |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    words = [word for pair in options.items() for word in pair]
    assert call("localize", *words, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_files(call, given, folder, image, tmp_path, capsys):
    (tmp_path / "in.png").write_bytes(b"\x89PNG no picture")
    model = ("--model", folder, "--caption", CAPTION, "--out", tmp_path / "out")
    assert call("localize", *model, "--image", tmp_path / "in.png") == 2
    said = capsys.readouterr().err
    assert "in.png: not a readable image" in said
    assert "--skip-bad" not in said
    Image.fromarray(image[:31]).save(tmp_path / "odd.png")
    assert call("localize", *model, "--image", tmp_path / "odd.png", "--no-resize") == 2
    assert "the model needs multiples of 2" in capsys.readouterr().err
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert call("localize", *given, "--settings", tmp_path / "deep.json") == 2
    assert "deep.json: not readable settings" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert call("localize", *given, "--out", tmp_path / "o", "--model", tmp_path / "empty") == 2
    assert "no model_index.json" in capsys.readouterr().err
    assert call("localize", *given, "--out", tmp_path / "o", "--inpaint-model", folder) == 2
    assert "takes 4 channels and an inpainting one takes 9" in capsys.readouterr().err


def test_no_region_is_no_error(call, given, tmp_path):
    """Without a step of alignment both embeddings are the same: nothing differs."""
    assert call("localize", *given, "--align-steps", 0, "--out", tmp_path / "out") == 0
    result = result_of(tmp_path / "out")
    assert result["metrics"]["words"] == []
    assert result["metrics"]["box"] is None
    assert "no inconsistent region was found" in result["notes"]


@pytest.mark.parametrize(
    "command", ["localize", "score", "predict", "eval", "calibrate", "train", "make_pairs", "demo"]
)
def test_help_needs_no_torch(command):
    code = (
        f"import sys; sys.argv=['x', '--help']\nfrom d_tiil.cli import main_{command} as m\n"
        "try: m()\nfinally: assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout or command == "demo"
