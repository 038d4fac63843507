r"""Maths as MathML, made when the site is built: ``$...$`` in a line, ``$$...$$`` as a paragraph.

A page then needs no script, no font file and no network to show an equation. It is a Markdown
extension, so that it sees what Markdown sees: code is left alone, docstrings are included.
A dollar sign that is meant as one is written ``\$``.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.blockparser import BlockParser
from markdown.blockprocessors import BlockProcessor
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

# No space inside the dollars and no digit after them, so that prices are not maths.
IN_LINE = r"(?<![\\$])\$(?![\s$])((?:\\.|[^\\$])+?)(?<!\s)\$(?![\d$])"
PARAGRAPH = re.compile(r"\s*\$\$(.+?)\$\$\s*", re.DOTALL)


def to_mathml(latex: str, *, display: bool = False) -> str:
    """Return `latex` as a ``<math>`` element.

    Args:
        latex: what stands between the dollars.
        display: as a paragraph of its own rather than in a line.

    Raises:
        ValueError: a command is not known, or braces do not match.
    """
    try:
        mathml = convert(latex.strip(), display="block" if display else "inline")
    except Exception as error:
        raise ValueError(f"cannot render ${latex}$: {type(error).__name__} {error}") from error
    unknown = [
        text
        for element in ElementTree.fromstring(mathml).iter()
        if (text := (element.text or "").strip()).startswith("\\") and len(text) > 1
    ]
    if unknown:
        raise ValueError(f"cannot render ${latex}$: unknown command {unknown[0]}")
    return mathml


class InLine(InlineProcessor):
    """``$...$``; runs after code spans are taken out and before emphasis is looked for."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        """Put the equation aside, where nothing else of Markdown touches it."""
        return self.md.htmlStash.store(to_mathml(m[1])), m.start(0), m.end(0)


class Paragraph(BlockProcessor):
    """``$$...$$``, a paragraph of its own, over one or more lines."""

    def __init__(self, parser: BlockParser, md: Markdown) -> None:
        super().__init__(parser)
        self.md = md

    def test(self, parent: ElementTree.Element, block: str) -> bool:
        """Return whether `block` is an equation."""
        return PARAGRAPH.fullmatch(block) is not None

    def run(self, parent: ElementTree.Element, blocks: list[str]) -> None:
        """Put the equation aside and leave its place as a paragraph."""
        match = PARAGRAPH.fullmatch(blocks.pop(0))
        assert match is not None
        place = ElementTree.SubElement(parent, "div", {"class": "maths"})
        place.text = self.md.htmlStash.store(to_mathml(match[1], display=True))


class Maths(Extension):
    """The Markdown extension that adds both forms."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register both: after code spans (190) and before escapes (180); before lists (< 95)."""
        md.inlinePatterns.register(InLine(IN_LINE, md), "maths", 185)
        md.parser.blockprocessors.register(Paragraph(md.parser, md), "maths", 95)


def on_config(config: Any) -> Any:
    """Add the extension; MkDocs calls this."""
    config.markdown_extensions.append(Maths())
    return config
