"""What the page answers, without a browser."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("diffusers")

from multi_edits.demo import COLUMNS, answer
from multi_edits.options import MethodOptions

SOURCE = "a red circle left of a blue square on a black background"
TARGET = "a [green] circle left of a blue dog on a white background"
METHOD = MethodOptions(steps=2)


def test_one_image_is_edited(pipe, image):
    edited, branches, rows, says = answer(pipe, image, SOURCE, TARGET, METHOD, 0)
    assert edited.size == (256, 256)
    assert (np.asarray(branches[-1][0]) == np.asarray(edited)).all()
    assert [row[0] for row in rows] == ["red -> green", "square -> dog", "black -> white"]
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert "network rows" in says
    odd, *_ = answer(pipe, image[:31, :30], SOURCE, TARGET, METHOD, 0)
    assert odd.size == (30 * 8, 32 * 8)  # fitted to the model, then enlarged


@pytest.mark.parametrize(
    ("size", "target", "seed", "message"),
    [
        (None, TARGET, 0, "give an image first"),
        (2100, TARGET, 0, "give at most 4,200,000"),
        (32, SOURCE, 0, "no edits"),
        (32, "", 0, "--target is empty"),
        (32, TARGET, -1, "--seed must be in"),
        (32, "dog " * 40, 0, "would be cut off"),
    ],
)
def test_what_it_refuses(pipe, size, target, seed, message):
    photo = None if size is None else np.zeros((size, size, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        answer(pipe, photo, SOURCE, target, METHOD, seed)


def test_the_command_names_its_extra_and_its_ports(call, folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert call("demo", "--model", folder) == 2
    assert 'pip install "multi-edits[demo]"' in capsys.readouterr().err
    assert call("demo", "--model", folder, "--port", 0) == 2
    assert "--port must be 1 to 65535" in capsys.readouterr().err
    assert call("demo", "--model", "nowhere") == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
