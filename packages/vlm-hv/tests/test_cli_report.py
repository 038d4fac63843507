from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from vlm_hv.findings import Finding
from vlm_hv.images import PictureOptions
from vlm_hv.pictures import GAP, MARGIN, pair_png
from vlm_hv.reporting import pick

BOX = (0.25, 0.5, 0.75, 0.9)


def drawn(options, *findings):
    """Where a report's picture is coloured, bool, shape (H, W)."""
    white = Image.new("L", (64, 64), 255)
    pixels = np.asarray(Image.open(io.BytesIO(pair_png(white, white, options, findings))))
    return (pixels.max(axis=2).astype(int) - pixels.min(axis=2)) > 40


def test_boxes_lie_where_the_answer_puts_them_in_what_was_sent():
    options = PictureOptions(min_side=512, border=32)
    side = 512 + 64
    left = drawn(options, Finding("slant", "a", "b", BOX, None))
    assert left.shape == (side + 2 * MARGIN, 2 * side + 4 * MARGIN + GAP)
    rows, columns = np.nonzero(left)
    assert columns.min() == MARGIN + round(0.25 * (side - 1))
    assert columns.max() == MARGIN + round(0.75 * (side - 1))
    assert rows.max() == MARGIN + round(0.9 * (side - 1))
    right = drawn(options, Finding("slant", "a", "b", None, BOX))
    shift = side + 2 * MARGIN + GAP
    assert (right[:, shift:] == left[:, :-shift]).all()
    assert not right[:, :shift].any()
    assert not drawn(options, Finding("slant", "a", "b")).any()


def test_boxes_of_one_canvas_lie_on_the_canvas():
    options = PictureOptions(min_side=512, border=0, layout="concat")
    both = drawn(options, Finding("slant", "a", "b", (0, 0.1, 0.4, 0.9), (0.6, 0.1, 1, 0.9)))
    columns = np.nonzero(both.any(axis=0))[0] - MARGIN
    assert (columns.min(), columns.max()) == (0, 2 * 512 + 8 - 1)


def record(decision, score, label, agrees=True):
    return {"prediction": decision, "score": score, "label": label, "order_agrees": agrees}


def test_pairs_worth_a_look():
    records = [
        record("same", 0.9, 1),
        record("same", 0.99, 0),
        record("different", 0.4, 1, agrees=False),
        record("unknown", None, 0),
        record("different", 0.01, 0),
    ]
    places = {
        group: [records.index(one) for one in found] for group, found in pick(records, 1).items()
    }
    assert places == {
        "most certain of the wrong": [1],
        "most certain of the right": [4],
        "the two orders disagree": [2],
        "no decision": [3],
    }
    for one in records:
        one["label"] = None
    assert list(pick(records, 2))[:2] == [
        "most certain of one writer",
        "most certain of two writers",
    ]


def test_settings_that_no_run_has(call, words, tmp_path, capsys):
    import json

    base = {"pair": 0, "known": "00_0.png", "questioned": "01_0.png", "label": 0, "writers": None}
    base |= {"prediction": "same", "score": 1.0, "status": "answered", "opinions": []}
    for change, message in (
        ({"settings": {"min_side": -1}}, "of its settings are not those of a run"),
        ({"settings": {}, "known": "../../secret.png"}, "names what is not there"),
    ):
        path = tmp_path / "predictions.jsonl"
        path.write_text(json.dumps(base | change) + "\n")
        out = tmp_path / "out"
        assert call("report", path, "--data", words, "--out", out) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line
        assert not out.exists()


@pytest.mark.parametrize("count", [0, 5000])
def test_a_page_has_a_size(call, words, tmp_path, count, capsys):
    (tmp_path / "predictions.jsonl").write_text("{}")
    given = (tmp_path / "predictions.jsonl", "--data", words, "--count", count)
    assert call("report", *given) == 2
    assert f"--count must be in [1, 1000], got {count}" in capsys.readouterr().err
