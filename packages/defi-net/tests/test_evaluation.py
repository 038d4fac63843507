from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from defi_net.evaluation import (
    ABOUT,
    curves,
    detection,
    judge,
    means,
    measures,
    metric_columns,
    read_rows,
    to_size,
    undistorted,
)
from defi_net.layouts import Sample
from papercommons.data.distortions import parse_distortions
from papercommons.errors import DataError
from papercommons.files import write_csv
from papercommons.metrics.localization import pixel_metrics
from papercommons.metrics.tables import compare

DISTORTIONS = parse_distortions(["jpeg=90", "50", "noise=5", "resize=0.5"], {})


def sample(number, forged):
    mask = Path(f"{number}.png") if forged else None
    method = "telea" if number % 2 else "ns"
    return Sample(
        Path(f"{number}.jpg"),
        mask,
        method=method if forged else "authentic",
        source=f"photo{number // 2}",
        name=f"set/{number}",
    )


SAMPLES = [sample(n, forged=n < 6) for n in range(10)]


def read(item):
    """A bright square is forged; every photograph is its own."""
    number = int(item.image.stem)
    photo = np.random.default_rng(number).integers(0, 60, (48, 64, 3), dtype=np.uint8)
    mask = np.zeros((48, 64), bool)
    if item.mask is not None:
        mask[10:40, 8 + number : 40] = True
        photo[mask] += 150
    return photo, mask


def predict(photo):
    return photo.mean(2) / 255


@pytest.fixture(scope="module")
def rows():
    return judge(predict, SAMPLES, distortions=DISTORTIONS, read=read)


def test_rows(rows):
    assert len(rows) == len(SAMPLES) * (1 + len(DISTORTIONS))
    first = rows[0]
    photo, mask = read(SAMPLES[0])
    assert [first[name] for name in ABOUT[:6]] == ["set/0", "ns", "photo0", 1, "none", None]
    assert first["area"] == mask.mean()
    assert first["score"] == pytest.approx(predict(photo).max())
    expected = pixel_metrics(predict(photo), mask, protocol="official")
    assert first["official_f1"] == expected["f1"]
    assert first["auc"] == expected["auc"]
    assert "imdl_false_positive_rate" not in first
    kinds = [(row["kind"], row["strength"]) for row in rows[:5]]
    assert kinds == [("none", None), ("jpeg", 90), ("jpeg", 50), ("noise", 5), ("resize", 0.5)]
    authentic = rows[-5]
    assert authentic["label"] == 0
    rates = {f"{protocol}_false_positive_rate" for protocol in ("official", "imdl", "trufor")}
    assert set(metric_columns([authentic])) == rates


def test_every_distortion_is_seen(rows):
    assert len({row["score"] for row in rows[:5]}) == 5
    again = judge(predict, SAMPLES[:1], distortions=DISTORTIONS, read=read)
    assert again == rows[:5]
    other = judge(predict, SAMPLES[:1], distortions=DISTORTIONS, read=read, seed=1)
    assert [a == b for a, b in zip(again, other, strict=True)] == [True, True, True, False, True]


def test_8_bit_maps_and_small_maps():
    levels = np.round(255 * predict(read(SAMPLES[0])[0])).astype(np.uint8)
    found = measures(levels, read(SAMPLES[0])[1], ["imdl"])
    exact = measures(levels / 255, read(SAMPLES[0])[1], ["imdl"])
    assert found == pytest.approx(exact)
    small = np.array([[0.0, 1.0]], dtype=np.float32)
    wide = to_size(small, (4, 8))
    assert wide.shape == (4, 8)
    assert wide.min() == 0
    assert wide.max() == 1
    assert to_size(wide, (4, 8)) is wide


def test_means_leave_distortions_out(rows):
    clean = undistorted(rows)
    found = {(s.group, s.metric): s for s in means(rows, draws=50)}
    ns = [row["imdl_f1"] for row in clean if row["method"] == "ns"]
    assert found["ns", "imdl_f1"].value == pytest.approx(np.mean(ns))
    assert found["all", "imdl_f1"].images == 6
    assert found["authentic", "imdl_false_positive_rate"].images == 4
    assert not any(metric in ABOUT for _, metric in found)


def test_detection_draws_sources(rows):
    found = detection(rows, draws=100)
    assert found["auc"].value == 1
    assert found["detection_rate"].value == 1
    lone = [{**row, "source": ""} for row in undistorted(rows)]
    assert detection(lone, draws=50)["auc"].value == 1


def test_curves(rows):
    found = curves(rows, "auc", draws=50)
    strengths = {kind: [p.strength for p in points] for kind, points in found.items()}
    assert {k: v for k, v in strengths.items() if k != "none"} == {
        "jpeg": [50, 90],
        "noise": [5],
        "resize": [0.5],
    }
    assert math.isnan(strengths["none"][0])
    of_jpeg = [row["auc"] for row in rows if row["strength"] == 50 and "auc" in row]
    assert found["jpeg"][0].value == pytest.approx(np.mean(of_jpeg))
    of_images = curves(rows, "image_auc", draws=50)
    assert of_images["jpeg"][0].value == 1
    with pytest.raises(ValueError, match="no row has imdl_f2; there are official_f1"):
        curves(rows, "imdl_f2")


def test_a_table_comes_back_from_its_file(rows, tmp_path):
    rows = [*rows, {**rows[0], "name": "x", "auc": math.nan}]
    write_csv(tmp_path / "items.csv", rows)
    back = read_rows(tmp_path / "items.csv")
    assert metric_columns(back) == metric_columns(rows)
    for ours, theirs in zip(back, rows, strict=True):
        for name, value in ours.items():
            expected = theirs.get(name)
            assert value == expected or (math.isnan(value) and math.isnan(expected))
    assert [s[:2] for s in means(back)] == [s[:2] for s in means(rows)]
    (same,) = compare(undistorted(back), undistorted(rows), ["auc"], draws=50)
    assert (same.value, same.images, same.undefined) == (0, 6, 1)


def broken(change):
    def write(path):
        table = [{name: "" for name in ABOUT} | {"name": f"i{n}", "label": 1} for n in range(3)]
        change(table)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file; expected a table of results"),
        (lambda path: path.write_bytes(b""), "no column name, method"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not a CSV table in UTF-8"),
        (lambda path: path.write_text(",".join(ABOUT) + "\n"), "a table without rows"),
        (lambda path: path.write_text(",".join(ABOUT) + "\na,b\n"), "line 2: not as many cells"),
        (broken(lambda t: t[1].update(name="i0")), "i0 is there 2 times"),
        (broken(lambda t: t[2].update(score="high")), "line 4: score is 'high', not a number"),
        (broken(lambda t: t[0].update(label="")), "label must be 0 or 1, got None"),
        (broken(lambda t: t[0].update(label=3)), "label must be 0 or 1, got 3.0"),
    ],
)
def test_tables_that_are_refused(write, message, tmp_path):
    write(tmp_path / "items.csv")
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "items.csv")


def test_nothing_to_judge():
    with pytest.raises(ValueError, match="no samples"):
        judge(predict, [], read=read)
