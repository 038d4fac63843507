"""Tables of results from the JSON files that `nox -s reproduce` and `nox -s bench` write.

``<!-- results: NAME -->`` in a page becomes the rows of docs/results/NAME.json with the notes,
hardware and command that stand there, and ``<!-- results: NAME maps -->`` its list maps alone, so
no number in the documentation is typed by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

NARROW = "\N{NO-BREAK SPACE}"  # a narrow column breaks before ±, not after it
MARK = re.compile(r"^<!-- results: ([\w-]+)(?: (\w+))? -->$", re.MULTILINE)


def shown(value: Any) -> str:
    """Return a cell: four digits of a fraction, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-4 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(result: dict[str, Any], key: str | None = None) -> str:
    """Return a list of rows as Markdown; lists within it are left out.

    A column ``std``, or whose name ends so, joins the column before it; columns ``NAME low`` and
    ``NAME high`` become one, ``NAME``.

    Args:
        result: ``rows`` (mappings), and optionally ``notes``, ``hardware``, ``command``.
        key: another list of rows instead, without what stands under the table.
    """
    rows = []
    for row in result[key or "rows"]:
        cells: dict[str, str] = {}
        for name, value in row.items():
            if name.endswith("std") and value is not None:
                cells[list(cells)[-1]] += f" ±{NARROW}{shown(value)}"
            elif name.endswith(" high") and (whole := name.removesuffix(" high")) in cells:
                cells[whole] += f" to{NARROW}{shown(value)}" if value is not None else ""
            elif name.endswith(" low") and f"{name.removesuffix(' low')} high" in row:
                cells[name.removesuffix(" low")] = shown(value)
            elif not name.endswith("std") and not isinstance(value, list):
                cells[name] = shown(value)
        rows.append(cells)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(row.get(name, "–") for name in names) + " |" for row in rows]
    if key is not None:
        return "\n".join(lines)
    about = [result.get("notes", "")]
    about += [f"{key}: {result[key]}." for key in ("hardware", "version") if key in result]
    about += [f"Made by `{result['command']}`."] if "command" in result else []
    return "\n".join(lines) + "\n\n" + " ".join(part for part in about if part)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put tables in the place of marks; MkDocs calls this."""
    folder = Path(config.docs_dir) / "results"

    def replace(found: re.Match[str]) -> str:
        path = folder / f"{found[1]}.json"
        if not path.is_file():
            return "Not measured yet."
        return table(json.loads(path.read_text(encoding="utf-8")), found[2])

    return MARK.sub(replace, markdown)
