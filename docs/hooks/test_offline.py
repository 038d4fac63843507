"""The check that pages load nothing from the network."""

from __future__ import annotations

import offline
import pytest


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        "<script async src=//cdn.example/x.js></script>",
        '<link rel="stylesheet" href="https://cdn.example/x.css">',
        '<link href="https://cdn.example/x.woff" rel="preconnect">',
        '<img alt="a" src="http://cdn.example/x.png">',
    ],
)
def test_found(html):
    assert len(offline.loads(html)) == 1
    assert "cdn.example/x" in offline.loads(html)[0]


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://arxiv.org/abs/2408.07703">paper</a>',
        '<script src="assets/x.js"></script><link rel="stylesheet" href="../x.css">',
        '<link rel="canonical" href="https://docs.example/">',
        '<math xmlns="http://www.w3.org/1998/Math/MathML"></math>',
    ],
)
def test_left_alone(html):
    assert offline.loads(html) == []


def test_style_sheets():
    assert offline.loads('@import "https://cdn.example/x.css";', css=True)
    assert offline.loads("a { background: url(https://cdn.example/x.png) }", css=True)
    assert not offline.loads("a { background: url(data:image/png;base64,AA) }", css=True)
