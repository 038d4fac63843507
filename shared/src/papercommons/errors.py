"""The error for what a user gave or lacks and what cannot work, and words for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """A file or folder of the user's is missing, broken or not as documented.

    The message says what, where, what was expected, what to do. Commands print it on one line and
    exit with 2; it survives the way out of a data-loader worker.
    """


def missing_library(what: str, library: str, install: str, *, instead: str = "") -> DataError:
    """Return the error for a library that is not installed, to be raised.

    Args:
        what: that needs it.
        library: its name.
        install: what brings it, for pip: a package with an extra.
        instead: what else will do, as an order.

    Example:
        >>> print(missing_library("a .mha file", "SimpleITK", "nlran[itk]"))
        a .mha file needs SimpleITK, which is not installed; run: pip install "nlran[itk]"
    """
    other = f", or {instead}" if instead else ""
    return DataError(
        f'{what} needs {library}, which is not installed; run: pip install "{install}"{other}'
    )


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean A or B?"`` with the closest of `names`, or ``""`` if none is close.

    Args:
        name: what the user wrote.
        names: what would be valid.

    Example:
        >>> nearest("resnet9", ["resnet8", "vgg8"])
        '; did you mean resnet8?'
    """
    matcher, scores = difflib.SequenceMatcher(b=name.lower()), {}
    for known in names:
        matcher.set_seq1(known.lower())
        if matcher.real_quick_ratio() >= 0.6 <= matcher.quick_ratio():  # bounds of ratio, and quick
            scores[known] = matcher.ratio()
    least = max(0.6, 0.9 * max(scores.values(), default=0.0))
    close = sorted((n for n in scores if scores[n] >= least), key=lambda n: -scores[n])[:3]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts.

    Args:
        number: >= 0.
        noun: of one; its plural ends in s.

    Example:
        >>> counted(1, "clip"), counted(1200, "clip")
        ('1 clip', '1,200 clips')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def one_line(text: str) -> str:
    r"""Return `text` for one line of a terminal: breaks become spaces, other controls are escaped.

    So the name of a file cannot break a message in two, or send commands to the terminal.

    Args:
        text: any; a Windows path stays as it is.

    Example:
        >>> one_line("a\nb\x1b[2J")
        'a b\\x1b[2J'
    """
    joined = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(c if c.isprintable() or c.isspace() else repr(c)[1:-1] for c in joined)


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters, or else its type.

    Args:
        error: what a library raised.
    """
    lines = str(error).strip().splitlines()
    return one_line(lines[0])[:200] if lines else type(error).__name__
