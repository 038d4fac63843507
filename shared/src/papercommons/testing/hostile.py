"""Values that no user means, for every option of a package's commands."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from unittest import mock

VALUES = ("", "-1", "nan", "inf", "1" * 40, "a\nb", "\udcff", "x" * 5000, "/dev/null", "{a: [1")


def check_options(package: str, folder: Path) -> None:
    """Check that each option of each command answers a hostile value as it should.

    Each option but --out gets one of the values, in turn. Input that a command requires does not
    exist, and its --out is a folder of something else, so that nothing begins.

    Args:
        package: name of the distribution.
        folder: an empty one; the working directory meanwhile.

    Raises:
        AssertionError: a command ended otherwise than with 0 or 2, or said more than a line.
    """
    (folder / "taken").mkdir()
    (folder / "taken" / "diary.txt").write_text("Dear diary")
    turn = itertools.cycle(VALUES)
    with contextlib.chdir(folder):
        for name, main in _commands(package):
            said = _call(main, name, ["--help"])[1]
            options = re.findall(r"^ {2}(--(?!out\b)[\w.-]+)", said, re.MULTILINE)
            for option, value in zip(options, turn, strict=False):
                words = [*_needed(said, without=option), f"{option}={value}"]
                code, _, errors = _call(main, name, words)
                told = [line for line in errors.splitlines() if ": error: " in line]
                assert code in (0, 2), (name, words, code, errors)
                assert len(told) == (code == 2), (name, words, code, errors)
    assert [path.name for path in folder.iterdir()] == ["taken"]
    assert [path.name for path in (folder / "taken").iterdir()] == ["diary.txt"]


def _commands(package: str) -> Iterator[tuple[str, Callable[[], None]]]:
    for script in distribution(package).entry_points.select(group="console_scripts"):
        yield script.name, script.load()


def _needed(said: str, *, without: str) -> list[str]:
    """Return arguments for what the usage line requires, and a taken --out."""
    usage = said.partition("[options]")[0].split()[2:]
    names = [word for word in usage if word.startswith("--")]
    names += ["--out"] if "\n  --out" in said and "--out" not in names else []
    given = {name: "taken" if name == "--out" else "nowhere" for name in names}
    given.pop(without, None)
    files = ["nowhere.png", "elsewhere.png"] if "..." in usage else []
    return [*files, *itertools.chain.from_iterable(given.items())]


def _call(main: Callable[[], None], name: str, words: list[str]) -> tuple[object, str, str]:
    """Return a console script's exit code, and what it prints to standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [name, *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            return stop.code, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()
