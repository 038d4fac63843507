"""`d-tiil-predict` over a tiny, untrained folder and a few made-up pairs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from d_tiil.layouts import open_pairs
from papercommons.files import hash_texts
from PIL import Image

pytest.importorskip("diffusers")

CAPTION = "a red circle left of a blue square on a black background"
OTHER = "a blue circle left of a blue square on a black background"


def lines_of(folder):
    return [json.loads(line) for line in (folder / "findings.jsonl").read_text().splitlines()]


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def pairs(image, tmp_path):
    """A list of three pairs, one of them inconsistent."""
    root = tmp_path / "set"
    root.mkdir()
    Image.fromarray(image).save(root / "one.png")
    Image.fromarray(image[:, ::-1].copy()).save(root / "two.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[10:22, 3:14] = 255
    Image.fromarray(mask).save(root / "mask.png")
    rows = [
        {"id": "good", "image": "one.png", "caption": CAPTION, "label": 0},
        {"id": "bad", "image": "one.png", "caption": OTHER, "label": 1, "kind": "color"}
        | {"mask": "mask.png", "words": [[2, 6]], "split": "test"},
        {"id": "new", "image": "two.png", "caption": CAPTION, "label": None},
    ]
    write(root, rows)
    return root


def write(root, rows):
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (root / "pairs.jsonl").write_text(text)


def test_all_pairs_are_looked_at_as_one_by_one(call, folder, pipe, pairs, image, tmp_path):
    out = tmp_path / "out"
    assert call("predict", "--model", folder, "--data", pairs, "--out", out, "--save-edited") == 0
    lines = {line["id"]: line for line in lines_of(out)}
    assert list(lines) == ["good", "bad", "new"]
    done = pipe(image, OTHER)
    line = lines["bad"]
    assert line["score"] == pytest.approx(100 - done.score)
    assert line["features"]["gap"] == pytest.approx(done.gap.value)
    assert line["top"] == [done.words[0].start, done.words[0].end]
    assert (np.asarray(Image.open(out / line["mask"])) == 255 * done.mask).all()
    assert (np.asarray(Image.open(out / line["map"])) == done.final.values).all()
    assert (np.asarray(Image.open(out / "edited/bad.png")) == np.asarray(done.edited)).all()
    result = result_of(out)
    assert result["metrics"]["pairs"] == 3
    assert {row["label"] for row in result["rows"]} == {"consistent", "inconsistent", "unknown"}
    assert (out / "report.html").read_text().count("data:image/png;base64") == 3


def test_a_resumed_run_is_the_same(call, folder, pairs, tmp_path, monkeypatch):
    asked = ("--model", folder, "--data", pairs, "--depth", "first", "--out")
    assert call("predict", *asked, tmp_path / "whole") == 0
    assert call("predict", *asked, tmp_path / "part", "--limit", 1) == 0
    assert call("predict", *asked, tmp_path / "part") == 2  # neither resumed nor overwritten
    (tmp_path / "part/mask/good.png").write_bytes(b"broken")  # is made again
    from d_tiil.pipeline import DTIILPipeline

    calls = []
    real = DTIILPipeline.__call__
    monkeypatch.setattr(
        DTIILPipeline, "__call__", lambda self, *a, **k: calls.append(a) or real(self, *a, **k)
    )
    assert call("predict", *asked, tmp_path / "part", "--resume") == 0
    assert len(calls) == 3
    assert lines_of(tmp_path / "part") == lines_of(tmp_path / "whole")
    assert call("predict", *asked, tmp_path / "part", "--resume") == 0
    assert len(calls) == 3  # nothing is left to do
    for line in lines_of(tmp_path / "whole"):
        for kind in ("map", "mask"):
            a, b = ((tmp_path / run / line[kind]).read_bytes() for run in ("part", "whole"))
            assert a == b
    assert call("predict", *asked, tmp_path / "part", "--resume", "--maps", 1) == 2


@pytest.mark.parametrize("method", ["empty", "attention"])
def test_baselines_of_the_same_model(call, folder, pairs, tmp_path, method):
    out = tmp_path / "out"
    asked = ("--model", folder, "--data", pairs, "--method", method, "--out", out)
    assert call("predict", *asked, "--split", "test") == 0
    (line,) = lines_of(out)
    assert line["id"] == "bad"
    assert np.asarray(Image.open(out / line["map"])).max() == 255
    assert (line["score"] is None) == (line["mask"] is None) == (method == "attention")
    assert "features" not in line
    result = result_of(out)
    assert result["metrics"]["seconds"] > 0
    (record,) = open_pairs(pairs).of_split("test")
    assert result["data_hash"] == hash_texts([record.digest()])  # of what was read, not written


def test_the_empty_caption_against_the_caption(pipe, image):
    from d_tiil.methods import empty_finder
    from d_tiil.model import DiffusionModel
    from d_tiil.records import Record
    from d_tiil.steps import Run

    pipe.settings = replace(pipe.settings, threshold=0.5)
    record = Record("x", image, CAPTION)
    found = empty_finder(pipe, 1, True)(record, record.open_image())
    model = DiffusionModel(pipe)
    run = Run(model, pipe.settings, 1, lambda total: None)
    latents = model.encode(record.open_image())
    none, said = (model.encode_text([text]) for text in ("", CAPTION))
    assert found.finding.score == pytest.approx(-run.gap(latents, none, said).value, abs=1e-6)
    assert (found.finding.mask == run.map(latents, said, none, 0.5).mask).all()


def test_a_pairs_name_may_be_too_long_for_a_file(call, folder, pairs, tmp_path):
    names = ["n" * 300, "n" * 299 + "m"]
    write(pairs, [{"id": name, "image": "one.png", "caption": CAPTION} for name in names])
    asked = ("--model", folder, "--data", pairs, "--method", "attention", "--out", tmp_path / "o")
    assert call("predict", *asked) == 0
    lines = lines_of(tmp_path / "o")
    assert [line["id"] for line in lines] == names
    assert len({line["map"] for line in lines}) == 2


def test_broken_pairs_are_named_and_counted(call, folder, pairs, tmp_path, capsys):
    rows = [json.loads(line) for line in (pairs / "pairs.jsonl").read_text().splitlines()]
    rows += [
        {"id": "gone", "image": "no.png", "caption": CAPTION},
        {"id": "out", "image": "../../in.png", "caption": CAPTION},
        {"id": "long", "image": "one.png", "caption": "red " * 40},
        {"id": "dull", "image": "one.png", "caption": "of the and"},
    ]
    write(pairs, rows)
    asked = ("--model", folder, "--data", pairs, "--depth", "first", "--align-steps", 1)
    assert call("predict", *asked, "--out", tmp_path / "out", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["metrics"]["pairs"], result["metrics"]["left_out"]) == (3, 4)
    listed = (tmp_path / "out/defects.csv").read_text()
    assert all(name in listed for name in ("gone", "out", "long", "dull"))
    assert call("predict", *asked, "--out", tmp_path / "other", "--strict") == 2
    assert "gone: no such file" in capsys.readouterr().err
    write(pairs, [*rows[:3], rows[5]])
    assert call("predict", *asked, "--out", tmp_path / "third", "--strict") == 2
    assert "long: the caption is longer" in capsys.readouterr().err
    write(pairs, rows[5:])
    assert call("predict", *asked, "--out", tmp_path / "fourth") == 2
    assert "none of the pairs can be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "nowhere: no such file or folder"),
        (("--layout", "coco"), "no layout 'coco'"),
        (("--split", "train"), "no records of split 'train'"),
        (("--kinds", "colour"), "'colour'; did you mean color?"),
        (("--limit", 0), "--limit must be >= 1"),
        (("--method", "clip"), "--method clip needs --clip-model"),
        (("--word-scorer", "clip"), "--word-scorer clip needs --clip-model"),
        (("--save-edited", "--depth", "first"), "--save-edited needs --method d-tiil and --depth"),
        (("--resume",), "nothing to resume"),
    ],
)
def test_bad_options(call, folder, pairs, tmp_path, capsys, arguments, message):
    given = ("--model", folder, "--data", pairs, "--out", tmp_path / "out")
    assert call("predict", *given, *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_model_is_needed(call, pairs, capsys):
    assert call("predict", "--data", pairs) == 2
    assert "--method d-tiil needs --model" in capsys.readouterr().err
