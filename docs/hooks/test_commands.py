"""The pages of commands."""

from __future__ import annotations

import logging

import commands


def test_a_page_has_one_section_per_entry_point(monkeypatch):
    monkeypatch.setattr(commands, "help_text", lambda command: f"usage: {command}")
    text = commands.page("nlran", {"nlran-train": "a:b", "nlran-fit": "a:b", "nlran-eval": "a:c"})
    assert text.count("\n## ") == 2
    assert "Also called `nlran-fit`." in text
    assert "```text\nusage: nlran-eval\n```" in text


def test_a_real_command():
    assert "mkdocs" in commands.help_text("mkdocs").lower()


def test_a_missing_command_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        text = commands.help_text("no-such-command")
    assert "no-such-command is not installed" in caplog.text
    assert "without the package" in text
