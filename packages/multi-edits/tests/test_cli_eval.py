"""`multi-edits-eval`: exact scenes, sets against each other, resuming, and what is missing."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")

from multi_edits import evaluating
from multi_edits.benchmark import Record, open_benchmark
from multi_edits.edited_sets import find_edited, name_sets
from multi_edits.evaluation import Measured, Tables, front, known_columns
from multi_edits.metrics.columns import COLUMNS
from multi_edits.scene_truth import judge_scene, read_truth
from papercommons.errors import DataError

NETWORKS = {column.name for column in COLUMNS if column.needs}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


@pytest.fixture(scope="module")
def scenes(call, tmp_path_factory):
    """Eight scenes with one or two edits."""
    out = tmp_path_factory.mktemp("scenes") / "scenes"
    assert call("make-scenes", "--out", out, "--count", 8, "--edits", "1,2") == 0
    return out


@pytest.fixture(scope="module")
def noisy(scenes, tmp_path_factory):
    """The exact edited pictures with noise, as another editor would lay them down."""
    place = tmp_path_factory.mktemp("noisy") / "noisy"
    rng = np.random.default_rng(0)
    for path in sorted((scenes / "targets").rglob("*.png")):
        noise = rng.integers(-20, 21, (32, 32, 3))
        made = np.clip(pixels(path) + noise, 0, 255).astype(np.uint8)
        to = place / path.relative_to(scenes / "targets")
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made).save(to)
    return place


@pytest.fixture(scope="module")
def judged(call, scenes, noisy, tmp_path_factory):
    out = tmp_path_factory.mktemp("judged") / "out"
    sets = f"exact={scenes / 'targets'},unedited={scenes / 'annotation_images'},{noisy}"
    options = ("--out", out, "--bootstrap", 50)
    assert call("eval", "--data", scenes, "--edited", sets, *options) == 0
    return out


def test_exact_pictures_are_all_right_and_unedited_ones_are_not(judged):
    metrics = result_of(judged)["metrics"]
    assert metrics["records"] == 8
    exact, unedited, noisy = (metrics["edited"][name] for name in ("exact", "unedited", "noisy"))
    for name in ("edits_right", "all_right", "background_ssim"):
        assert exact[name]["mean"] == pytest.approx(1)
    assert exact["target_psnr"]["mean"] == exact["background_psnr"]["mean"] == 100
    assert unedited["edits_right"]["mean"] == unedited["all_right"]["mean"] == 0
    assert unedited["background_psnr"]["mean"] == 100
    assert unedited["target_psnr"]["mean"] < noisy["target_psnr"]["mean"] < 40
    assert exact["all_right"]["low"] == exact["all_right"]["high"] == 1
    low, high = (noisy["target_psnr"][end] for end in ("low", "high"))
    assert low <= noisy["target_psnr"]["mean"] <= high
    assert set(metrics["unavailable"]) == NETWORKS


def test_files_hold_every_measurement_and_every_group(judged, scenes, noisy):
    rows = {(row["edited"], row["record"]): row for row in rows_of(judged / "items.csv")}
    assert len(rows) == 3 * 8
    record = next(iter(open_benchmark(scenes)))
    place = f"{record.key}.png"
    before, after = (pixels(folder / place) for folder in (scenes / "annotation_images", noisy))
    apart = (before - after) / 255
    apart[record.mask] = 0
    row = rows["noisy", record.key]
    assert float(row["background_mse"]) == pytest.approx((apart**2).mean(), rel=1e-4)
    apart = (pixels(scenes / "targets" / place) - after) / 255
    psnr = -10 * np.log10((apart**2).mean())
    assert float(row["target_psnr"]) == pytest.approx(psnr, rel=1e-5)
    assert row["clip"] == row["structure_distance"] == ""
    summary = rows_of(judged / "summary.csv")
    ones = [
        float(row["target_psnr"])
        for (label, _), row in rows.items()
        if label == "noisy" and row["edits"] == "1"
    ]
    (line,) = [
        row
        for row in summary
        if (row["edited"], row["by"], row["group"], row["metric"])
        == ("noisy", "edits", "1", "target_psnr")
    ]
    assert float(line["mean"]) == pytest.approx(np.mean(ones))
    assert int(line["records"]) == len(ones) == 4


def test_the_report_compares_and_shows(judged):
    text = (judged / "report.html").read_text()
    for words in (
        "Keeping and success",
        "By category",
        "By number of edits",
        "Against exact",
        "not measured: background_lpips: no SqueezeNet weights",
        "faithfulness (PSNR to the exact picture (dB) of exact)",
    ):
        assert words in text
    assert text.count("data:image/png;base64,") == 1 + 8


def test_measurements_are_kept_and_changed_images_measured_again(
    call, scenes, noisy, judged, tmp_path, monkeypatch
):
    shutil.copytree(noisy, tmp_path / "noisy")
    measured = []
    plain = evaluating.measure_edit

    def counted(record, *rest):
        measured.append(record.key)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return plain(record, *rest)

    monkeypatch.setattr(evaluating, "measure_edit", counted)
    arguments = ("eval", "--data", scenes, "--edited", tmp_path / "noisy", "--out", tmp_path / "o")
    keys = [record.key for record in open_benchmark(scenes)]
    assert call(*arguments) == 1
    assert call(*arguments, "--resume") == 0
    assert measured == [*keys[:3], *keys[2:]]
    again = result_of(tmp_path / "o")["metrics"]["edited"]["noisy"]
    for name, found in result_of(judged)["metrics"]["edited"]["noisy"].items():
        assert again[name]["mean"] == found["mean"]
    Image.new("RGB", (32, 32)).save(tmp_path / "noisy" / f"{keys[4]}.png")
    measured[:] = ["before"] * 3
    assert call(*arguments, "--resume") == 0
    assert measured[3:] == [keys[4]]


def test_another_setting_is_not_resumed(call, scenes, noisy, judged, capsys):
    sets = f"exact={scenes / 'targets'},unedited={scenes / 'annotation_images'},{noisy}"
    arguments = ("eval", "--data", scenes, "--edited", sets, "--out", judged)
    assert call(*arguments, "--no-border", "--resume") == 2
    assert "border was True and is now False" in capsys.readouterr().err
    assert call(*arguments) == 2
    assert "not empty; pass --resume, --overwrite" in capsys.readouterr().err


def test_missing_images_are_named_and_all_are_judged_on_the_same_records(
    call, scenes, noisy, tmp_path, capsys
):
    shutil.copytree(noisy, tmp_path / "some")
    first = next(iter(open_benchmark(scenes))).key
    (tmp_path / f"some/{first}.png").unlink()
    arguments = ("eval", "--data", scenes, "--edited", f"{noisy},{tmp_path / 'some'}")
    assert call(*arguments, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["records"] for row in result["rows"]] == [7, 7]
    assert result["metrics"]["left_out"] == 1
    assert result["notes"][-1] == (
        f"left out: {first}: {tmp_path / 'some'} has no edited image; expected {first}.png"
    )
    assert call(*arguments, "--strict") == 2
    assert f"{first}: {tmp_path / 'some'} has no edited image" in capsys.readouterr().err


def test_images_of_another_size_are_resized_and_named(call, scenes, noisy, tmp_path, capsys):
    shutil.copytree(noisy, tmp_path / "large")
    first = next(iter(open_benchmark(scenes))).key
    path = tmp_path / f"large/{first}.png"
    Image.fromarray(pixels(path).astype(np.uint8)).resize((64, 64)).save(path)
    arguments = ("eval", "--data", scenes, "--edited", tmp_path / "large")
    assert call(*arguments, "--json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert f"{path} has 64 x 64 pixels and was resized; expected 32 x 32" in notes[-1]
    assert call(*arguments, "--strict") == 2


def test_edited_images_are_found_where_editors_lay_them_down(tmp_path):
    records = [
        Record("1", "a", tmp_path / "annotation_images/a/x/1.jpg", "s", "t"),
        Record("1", "b", None, "s", "t"),
        Record("2", "b", None, "s", "t"),
    ]

    def found(*names):
        place = tmp_path / "edited"
        shutil.rmtree(place, ignore_errors=True)
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(b"x")
        files = find_edited("edited", place, records).files
        return {key: str(path.relative_to(place)) for key, path in files.items()}

    assert found("a/1.png", "b/1.jpg") == {"a/1": "a/1.png", "b/1": "b/1.jpg"}
    assert found("a/x/1.webp") == {"a/1": "a/x/1.webp"}
    assert found("annotation_images/b/2.png") == {"b/2": "annotation_images/b/2.png"}
    assert found("1.png", "2.png") == {"b/2": "2.png"}  # two records are called 1
    with pytest.raises(DataError, match=r"holds no edited image .* such as a/1\.png"):
        found("c/1.png")


def test_files_outside_of_a_folder_are_not_read(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "run/1.png").write_bytes(b"x")
    records = [Record("1", "", None, "s", "t"), Record("../secret", "", None, "s", "t")]
    assert list(find_edited("run", tmp_path / "run", records).files) == ["1"]
    listed = {"1": "../secret.png", "../secret": str(tmp_path / "secret.png")}
    (tmp_path / "run/predictions.json").write_text(json.dumps(listed))
    with pytest.raises(DataError, match="holds no edited image"):
        find_edited("run", tmp_path / "run", records)
    (tmp_path / "run/predictions.json").write_text("[]")
    with pytest.raises(DataError, match="expected an object"):
        find_edited("run", tmp_path / "run", records)


def test_sets_have_names(tmp_path):
    (tmp_path / "a=b/out").mkdir(parents=True)
    place = str(tmp_path / "a=b/out")
    assert list(name_sets([place, f"x={place}"])) == ["out", "x"]
    with pytest.raises(DataError, match="two folders are called 'out'"):
        name_sets([place, place])
    with pytest.raises(DataError, match="no such folder"):
        name_sets(["x=nowhere"])
    with pytest.raises(DataError, match="--edited is empty"):
        name_sets([])


def test_a_scene_is_right_only_with_everything_else_as_it_was(scenes):
    truths = read_truth(scenes)
    record = next(r for r in open_benchmark(scenes) if len(r.edits) == 1)
    truth = truths[record.id]
    other = next(fact for fact in truth.before.facts() if fact.attribute == "color")
    other = next(
        other._replace(value=value)
        for value in truth.before.preset.values(other.place, "color")
        if value != other.value and other._replace(value=value) not in truth.facts
    )
    also = truth.before.edited([fact for fact in truth.facts if fact[:2] != other[:2]] + [other])
    picture = Image.fromarray(also.render(32))
    values = judge_scene(record, truth, picture, scenes)
    assert values["all_right"] == 0
    exact = Image.fromarray(truth.before.edited(truth.facts).render(32))
    assert judge_scene(record, truth, exact, scenes)["all_right"] == 1
    assert read_truth(scenes / "targets") == {}


def test_broken_truth_is_named(tmp_path):
    (tmp_path / "scenes.json").write_text('{"1": {"preset": "simple", "things": []}}')
    with pytest.raises(DataError, match="not as multi-edits-make-scenes writes it"):
        read_truth(tmp_path)


def test_differences_are_record_by_record():
    def part(label, values):
        rows = [
            {"record": str(k), "category": "-", "edits": 1, "background": "kept", "clip": value}
            for k, value in enumerate(values)
        ]
        return Measured(label, rows)

    first, second = part("a", [1.0, 2.0, None, 9.0]), part("b", [2.0, 3.0, 5.0, None])
    tables = Tables([first, second], known_columns((), scenes=False), draws=20, seed=0)
    (section,) = [s for s in tables.sections() if s.heading == "Against a"]
    (row,) = section.rows
    assert (row["difference"], row["95 %"], row["records"]) == (1, "1.000 to 1.000", 2)
    assert [line["CLIP"] for line in tables.overall()] == [4, pytest.approx(10 / 3)]
    assert tables.sorting(None).name == "clip"


def test_no_other_point_beats_the_front():
    points = [(1, 3), (2, 2), (1, 2), (3, 1), (3, 0), (2, 2)]
    assert front(points) == [(1, 3), (2, 2), (3, 1)]
    assert front([(0, 0)]) == [(0, 0)]


def test_bad_words_are_refused(call, scenes, noisy, tmp_path, capsys):
    arguments = ("eval", "--data", scenes, "--edited", noisy)
    for more, words in (
        (("--bootstrap", 1), "--bootstrap must be >= 10, got 1"),
        (("--resume",), "--resume goes on with the run in --out"),
        (("--sort-by", "clip"), "--sort-by clip: is not measured here; there are edits_right"),
        (("--clip", tmp_path), "not a readable"),
        (("--out", noisy.parent, "--overwrite"), "--overwrite would delete"),
        (("--limit", 0), "--limit must be >= 1"),
    ):
        assert call(*arguments, *more) == 2
        assert words in capsys.readouterr().err
    assert call("eval", "--data", scenes, "--edited", tmp_path / "none") == 2
    assert "none: no such folder" in capsys.readouterr().err
