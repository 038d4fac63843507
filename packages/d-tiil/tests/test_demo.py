"""What the page answers, without a browser."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("diffusers")

from d_tiil.calibration import Calibration
from d_tiil.demo import COLUMNS, DEPTHS, answer, usable_depths
from d_tiil.opening import quantity_hashes
from d_tiil.options import HelperOptions
from d_tiil.settings import LocateSettings
from papercommons.errors import DataError

CAPTION = "a red circle left of a blue square on a black background"


def test_one_pair(pipe, image):
    pictures, rows, says = answer(pipe, image, CAPTION, "full", 0)
    assert [name for _, name in pictures] == ["mask", "final map", "edited towards the caption"]
    assert all(picture.size == (256, 256) for picture, _ in pictures)
    assert len(rows) == 7
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert [row[2] for row in rows].count("yes") == 1
    assert f"[{rows[0][0]}]" in says
    pictures, rows, says = answer(pipe, image, CAPTION, "score", 0)
    assert (pictures, rows) == ([], [])
    assert "no decision" in says


@pytest.mark.parametrize(
    ("size", "caption", "seed", "message"),
    [
        (None, CAPTION, 0, "give an image first"),
        (7000, CAPTION, 0, "give at most 40,000,000"),
        (32, " ", 0, "--caption is empty"),
        (32, "of the", 0, "has no word"),
        (32, CAPTION, -1, "--seed must be in"),
        (32, "red " * 40, 0, "is longer than the 16 tokens"),
    ],
)
def test_what_it_refuses(pipe, size, caption, seed, message):
    photo = None if size is None else np.zeros((size, size, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        answer(pipe, photo, caption, "first", seed)


def test_only_depths_that_the_calibration_holds_for(folder):
    method, helpers = LocateSettings(), HelperOptions(clip_model=str(folder))
    first = quantity_hashes("abc", method, helpers, "first")

    def usable(feature, weights="abc"):
        made = Calibration(feature, 1.0, 0.0, 50.0, made_with=first[feature])
        return usable_depths(made, weights, method, helpers)

    assert usable_depths(None, "abc", method, helpers) == list(DEPTHS)
    assert usable("gap") == list(DEPTHS)
    assert usable("clip_region") == ["first step only"]
    with pytest.raises(DataError, match="another model or other settings"):
        usable("gap", weights="def")


def test_the_command_names_its_extra_and_its_ports(call, folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert call("demo", "--model", folder) == 2
    assert 'pip install "d-tiil[demo]"' in capsys.readouterr().err
    assert call("demo", "--model", folder, "--port", 0) == 2
    assert "--port must be 1 to 65535" in capsys.readouterr().err
    assert call("demo", "--model", "nowhere") == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
