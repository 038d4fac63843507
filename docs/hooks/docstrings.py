"""A griffe extension: a docstring's "Example:" is shown as code, as "Examples:" is."""

from __future__ import annotations

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Names the section as griffe knows it; our docstrings have one example and say so."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that has just been read."""
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub("^Example:$", "Examples:", text, flags=re.MULTILINE)
