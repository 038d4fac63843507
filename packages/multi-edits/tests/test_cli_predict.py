"""`multi-edits-predict` over a tiny, untrained folder: files, resuming, defects, baselines."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")

from multi_edits import GroupingSettings, MultiEditsPipeline, editors, opening
from multi_edits.baselines import Img2ImgSettings, edit_with_img2img, edit_with_leditspp
from multi_edits.benchmark import open_benchmark

SOURCE = "a red circle left of a blue square on a black background"
QUICK = ("--steps", 2, "--group-steps", 2)
GOOD = ("a_1", "b_1", "b_2")  # names of what can be edited


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def record(name, target, **more):
    values = {"image_path": f"{name}.png", "source_prompt": SOURCE, "target_prompt": target}
    return {**values, "mask": [64, 512], "mask_size": [32, 32], **more}


@pytest.fixture(scope="module")
def bench(image, tmp_path_factory):
    """Three records that can be edited, one without an image, one whose prompt is too long."""
    place = tmp_path_factory.mktemp("bench")
    pictures = place / "annotation_images"
    for name in ("a/1", "b/1", "b/2", "c/long"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :: -1 if name == "b/2" else 1]).save(pictures / f"{name}.png")
    moved = {"position": 9, "edit_type": 6, "action": "red"}
    records = {
        "1": record("a/1", "a green circle left of a blue square on a black background"),
        "2": record("b/2", "a red circle left of a white square on a green background"),
        "none": record("b/none", "a green circle"),
        "long": record("c/long", "a very unspeakably incomprehensible circumstance " + SOURCE),
    }
    moves = {"edit_action": {"white": moved}, "image_path": "b/1.png"}
    white = record("b/1", "a white circle left of a blue square on a black background", **moves)
    listed = [{"id": name, **values} for name, values in records.items()] + [{"id": "1", **white}]
    (place / "mapping_file.json").write_text(json.dumps(listed))
    return place


@pytest.fixture(scope="module")
def predicted(call, folder, bench, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "out"
    assert call("predict", "--model", folder, "--data", bench, "--out", out, *QUICK) == 0
    return out


def test_records_are_edited_as_the_pipeline_does(predicted, bench, pipe):
    assert json.loads((predicted / "predictions.json").read_text()) == {
        "a/1": "edited/a_1.png",
        "b/1": "edited/b_1.png",
        "b/2": "edited/b_2.png",
    }
    second = next(r for r in open_benchmark(bench) if r.key == "b/2")
    done = pipe(
        second.open_image(),
        source_prompt=SOURCE,
        edits=second.edits,
        steps=2,
        grouping=GroupingSettings(steps=2),
    )
    edited = pixels(predicted / "edited/b_2.png")
    assert (edited == np.asarray(done.image)).all()
    rows = {row["record"]: row for row in rows_of(predicted / "predictions.csv")}
    assert rows["b/2"]["edits"] == "2"
    assert int(rows["b/2"]["network_rows"]) == done.rows
    assert rows["b/2"]["groups"].split() == [group.kind for group in done.groups]
    assert rows["b/1"]["types"] == "color"
    apart = (edited - pixels(bench / "annotation_images/b/2.png")) / 255
    apart[second.mask] = 0
    assert float(rows["b/2"]["background_psnr"]) == pytest.approx(
        -10 * np.log10((apart**2).mean()), abs=1e-3
    )
    assert not (predicted / "pictures").exists()


def test_defects_are_named_and_counted(predicted):
    result = result_of(predicted)
    assert result["metrics"]["records"] == 3
    assert result["metrics"]["left_out"] == 2
    found = rows_of(predicted / "defects.csv")
    assert len(found) == result["metrics"]["defects"]
    by_record = {row["record"]: row for row in found}
    assert "no such file" in by_record["b/none"]["what"]
    assert "would be cut off" in by_record["c/long"]["what"]
    assert by_record["b/1"]["fatal"] == "False"
    assert "position 9" in by_record["b/1"]["what"]
    assert result["notes"][0] == f"{len(found)} defects; 2 records left out"
    assert any("left out: c/long" in note for note in result["notes"])
    assert "c/long" not in (predicted / "predictions.csv").read_text()
    assert "b/none" in (predicted / "report.html").read_text()


def test_an_interrupted_run_goes_on_to_the_same_files(
    call, folder, bench, predicted, tmp_path, monkeypatch
):
    begun = []
    plain = editors.Editor.edit

    def interrupted(self, pipe, record, *rest):
        begun.append(record.key)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return plain(self, pipe, record, *rest)

    arguments = ("predict", "--model", folder, "--data", bench, "--out", tmp_path / "o", *QUICK)
    monkeypatch.setattr(editors.Editor, "edit", interrupted)
    assert call(*arguments) == 1
    assert [path.name for path in (tmp_path / "o/edited").iterdir()] == ["a_1.png"]
    assert call(*arguments, "--resume") == 0
    assert begun == ["a/1", "b/1", "b/1", "b/2", "c/long"]
    for name in GOOD:
        ours = (tmp_path / f"o/edited/{name}.png").read_bytes()
        assert ours == (predicted / f"edited/{name}.png").read_bytes()
    assert result_of(tmp_path / "o")["data_hash"] == result_of(predicted)["data_hash"]


def test_only_what_is_missing_or_changed_is_done_again(
    call, folder, bench, predicted, tmp_path, monkeypatch
):
    shutil.copytree(predicted, tmp_path / "o")
    shutil.copytree(bench, tmp_path / "bench")
    config = tmp_path / "o/config.yaml"  # as if the run had been of the copied benchmark
    text = config.read_text().replace(str(bench), str(tmp_path / "bench"))
    config.write_text(text.replace(str(predicted), str(tmp_path / "o")))
    Image.new("RGB", (32, 32)).save(tmp_path / "o/edited/a_1.png")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "bench/annotation_images/b/1.png")
    begun = []
    plain = editors.Editor.edit
    monkeypatch.setattr(
        editors.Editor,
        "edit",
        lambda self, pipe, r, *rest: begun.append(r.key) or plain(self, pipe, r, *rest),
    )
    arguments = ("--model", folder, "--data", tmp_path / "bench", "--out", tmp_path / "o", *QUICK)
    assert call("predict", *arguments, "--resume") == 0
    assert begun == ["a/1", "b/1", "c/long"]
    again = (tmp_path / "o/edited/a_1.png").read_bytes()
    assert again == (predicted / "edited/a_1.png").read_bytes()


def test_another_model_or_setting_is_not_resumed(
    call, folder, bench, predicted, tmp_path, capsys, monkeypatch
):
    arguments = ("predict", "--model", folder, "--data", bench, "--out", predicted, *QUICK)
    for option, words in (
        (("--guidance", 2), "guidance was 4.0 and is now 2.0"),
        (("--seed", 1), "seed was 0 and is now 1"),
        (("--method", "img2img"), "method was 'multi-edits' and is now 'img2img'"),
    ):
        assert call(*arguments, *option, "--resume") == 2
        assert words in capsys.readouterr().err
    monkeypatch.setattr("multi_edits.predicting.hash_model", lambda model: "another")
    assert call(*arguments, "--resume") == 2
    assert "cannot resume: weights was" in capsys.readouterr().err
    assert call(*arguments) == 2
    assert "not empty; pass --resume, --overwrite" in capsys.readouterr().err


def test_strict_refuses_defects_and_records_that_cannot_be_edited(
    call, folder, bench, tmp_path, capsys
):
    arguments = ("--model", folder, "--out", tmp_path / "o", *QUICK, "--strict")
    assert call("predict", "--data", bench, *arguments) == 2
    assert "defects in all" in capsys.readouterr().err
    shutil.copytree(bench / "annotation_images", tmp_path / "annotation_images")
    records = json.loads((bench / "mapping_file.json").read_text())
    long = [record for record in records if record["id"] == "long"]
    (tmp_path / "list.json").write_text(json.dumps(long))
    assert call("predict", "--data", tmp_path / "list.json", *arguments) == 2
    assert "c/long: the prompt" in capsys.readouterr().err
    loose = (*arguments[:-1], "--overwrite")
    assert call("predict", "--data", tmp_path / "list.json", *loose) == 2
    assert "none of the records can be edited: c/long" in capsys.readouterr().err
    absent = [record for record in records if record["id"] == "none"]
    (tmp_path / "list.json").write_text(json.dumps(absent))
    assert call("predict", "--data", tmp_path / "list.json", *loose) == 2
    assert "no record can be edited: b/none" in capsys.readouterr().err


def test_baselines_edit_the_same_records(call, folder, bench, tmp_path):
    pipe = MultiEditsPipeline.from_pretrained(folder)
    (first,) = [record for record in open_benchmark(bench) if record.key == "a/1"]
    common = ("predict", "--model", folder, "--data", bench, "--limit", 1)
    steps = ("--baseline-steps", 4, "--seed", 3)
    for method, more, done in (
        (
            "ledits++",
            (),
            edit_with_leditspp(pipe, first.open_image(), first.edits, steps=4, seed=3),
        ),
        (
            "img2img",
            ("--img2img-strength", 0.5),
            edit_with_img2img(
                pipe,
                first.open_image(),
                first.target,
                steps=4,
                settings=Img2ImgSettings(strength=0.5),
                seed=3,
            ),
        ),
    ):
        out = tmp_path / method
        assert call(*common, "--method", method, *steps, *more, "--out", out) == 0
        assert (pixels(out / "edited/a_1.png") == np.asarray(done.image)).all()
        (row,) = rows_of(out / "predictions.csv")
        assert int(row["network_rows"]) == done.rows


def test_results_have_the_records_own_size_and_pictures_if_asked(call, folder, image, tmp_path):
    Image.fromarray(image[:, :31]).save(tmp_path / "x.png")
    target = "a green circle left of a blue square on a black background"
    values = {"id": "../x", "image_path": "x.png", "source_prompt": SOURCE, "target_prompt": target}
    (tmp_path / "list.json").write_text(json.dumps([values]))
    out = tmp_path / "o"
    arguments = ("--model", folder, "--data", tmp_path / "list.json", "--out", out, *QUICK)
    assert call("predict", *arguments) == 2  # 31 pixels are no multiple of 2
    assert call("predict", *arguments, "--resize", "--save", "all", "--overwrite") == 0
    (path,) = (out / "edited").iterdir()
    assert pixels(path).shape == (32, 31, 3)
    pictures = {p.name for p in (out / "pictures" / path.stem).iterdir()}
    assert {"branches", "masks", "maps", "edited.png"} <= pictures
    assert {p.name for p in tmp_path.iterdir()} == {"x.png", "list.json", "o"}


def test_bad_words_are_refused_before_the_model_is_opened(
    call, folder, bench, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(opening, "open_pipeline", None)
    arguments = ("predict", "--model", folder, "--out", tmp_path / "o")
    for more, words in (
        (("--data", tmp_path / "none"), "no such file or folder"),
        (("--data", bench, "--categories", "aa"), "has a, b, c, not 'aa'"),
        (("--data", bench, "--limit", 0), "--limit must be >= 1, got 0"),
        (("--data", bench, "--ledits-threshold", 2), "--ledits-threshold must be in [0, 1), got 2"),
        (("--data", bench, "--img2img-strength", 0), "--img2img-strength must be in (0, 1], got 0"),
        (("--data", bench, "--baseline-steps", 1), "--baseline-steps must be >= 2, got 1"),
        (("--data", bench, "--resume"), "nothing to resume"),
    ):
        assert call(*arguments, *more) == 2
        assert words in capsys.readouterr().err
    assert call("predict", "--model", tmp_path, "--data", bench, "--out", tmp_path / "o") == 2
    assert "no model_index.json" in capsys.readouterr().err
    options = ("--method", "img2img", "--accelerator", "auto", "--offload")
    assert call(*arguments, "--data", bench, *options) == 2
    assert "--offload is not for --method img2img" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
