"""YAML that may be broken or mean harm; needs no torch."""

from __future__ import annotations

from typing import Any

import yaml

from papercommons.errors import reason

_MOST = 20  # levels; and aliases, each of which may repeat all that the ones before it stand for


def parse_yaml(text: str) -> Any:
    """Return what a YAML document holds: plain types only, nothing in it is run.

    Args:
        text: of the document, with at most 20 levels and 20 aliases (``*name``).

    Raises:
        ValueError: it is no YAML of this kind; the message says where.
    """
    around: list[str | None] = []  # anchors of the collections that an event is in
    aliases = 0
    try:
        for event in yaml.parse(text):
            if isinstance(event, yaml.CollectionStartEvent):
                around.append(event.anchor)
            elif isinstance(event, yaml.CollectionEndEvent):
                around.pop()
            elif isinstance(event, yaml.AliasEvent):
                aliases += 1
                if event.anchor in around:
                    raise ValueError(f"*{event.anchor} stands in what it means")
            if max(len(around), aliases) > _MOST:
                raise ValueError(f"more than {_MOST} levels or aliases")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}{getattr(error, 'problem', None) or 'unreadable'}") from None
    except Exception as error:  # PyYAML fails in many ways on broken dates and numbers
        raise ValueError(reason(error)) from None
