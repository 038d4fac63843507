"""What a command found: a table on the terminal, result.json, and a page that needs no network.

Figures share one look. matplotlib is imported only where a figure is drawn.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import math
import platform
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from papercommons.errors import one_line
from papercommons.files import write_json, write_text
from papercommons.versions import installed_version

Row = Mapping[str, Any]
PALETTE = ("#2563eb", "#d97706", "#059669", "#be185d", "#6d28d9", "#0891b2", "#65a30d", "#475569")


@dataclasses.dataclass
class Result:
    """What a command found, with all that is needed to judge and repeat it.

    Attributes:
        package: distribution whose command ran, e.g. ``rld-distill``.
        command: name of the command.
        title: what the table shows, in one line.
        rows: the table, one mapping per row; the keys of all rows are its columns.
        metrics: the headline numbers by name.
        settings: every resolved option, plain types.
        limits: what the numbers do not say: one or more sentences.
        data_hash: short hash of the input, None where there is none.
        device: what it ran on.
        files: what was written, by kind (``checkpoint``, ``report``, ...).
        notes: lines to print under the table.
    """

    package: str
    command: str
    title: str
    rows: Sequence[Row] = ()
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    limits: str = ""
    data_hash: str | None = None
    device: str = ""
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    created: str = dataclasses.field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds")
    )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain types; numbers that are not finite become None."""
        names = (self.package, "papercommons", "torch")
        versions = {name: installed_version(name) for name in names}
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {
            "seed": self.settings.get("seed"),
            "versions": versions | {"python": platform.python_version()},
        }
        return _plain(values)

    def save(self, folder: str | Path) -> Path:
        """Write result.json into `folder`, whole or not at all, and return its path."""
        path = Path(folder) / "result.json"
        self.files.setdefault("result", str(path))
        write_json(path, self.to_dict())
        return path

    def print(self, *, as_json: bool = False) -> None:
        """Print one JSON object, or title, table, notes and files, to standard output."""
        if as_json:
            print(json.dumps(self.to_dict(), allow_nan=False))
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that knows no dash or umlaut
        piped = not sys.stdout.isatty()
        console = Console(width=120 if piped else None, markup=False, emoji=False, highlight=False)
        console.print(one_line(self.title), soft_wrap=piped)
        rows = self.table()
        if rows:
            table = Table(box=SIMPLE_HEAD)
            for name in _columns(rows):
                justify: Any = "right" if _is_numeric(rows, name) else "left"
                table.add_column(one_line(name), justify=justify, overflow="fold")
            for row in rows:
                table.add_row(*(format_value(row.get(name)) for name in _columns(rows)))
            console.print(table)
        for line in self.notes:
            console.print(one_line(line), soft_wrap=piped)
        for kind, path in self.files.items():
            console.print(f"{kind}: {one_line(path)}", soft_wrap=True)

    def table(self) -> Sequence[Row]:
        """Return the rows; without any, the metrics as one row each."""
        return self.rows or [{"metric": k, "value": v} for k, v in self.metrics.items()]


def format_value(value: Any) -> str:
    """Return `value` as people read it in a table: four digits of a fraction, a dash for None.

    Args:
        value: a cell.

    Example:
        >>> [format_value(v) for v in (0.5, 0.00012345, 12345.6, 1234567, None, True)]
        ['0.5000', '0.0001234', '12,346', '1,234,567', '–', 'yes']
    """
    value = _plain(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if 1e4 <= abs(value) < 1e9:
            return f"{value:,.0f}"
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else one_line(str(value))


@dataclasses.dataclass
class Section:
    """One part of a report page.

    Attributes:
        heading: its title.
        text: a paragraph, plain text.
        figure: PNG bytes of a picture, see `figure_png`.
        caption: what the picture shows; read out where pictures are not seen.
        rows: a table.
        links: words -> the page they lead to, a path relative to the report.
    """

    heading: str
    text: str = ""
    figure: bytes | None = None
    caption: str = ""
    rows: Sequence[Row] = ()
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write_report(path: str | Path, result: Result, sections: Sequence[Section] = ()) -> Path:
    """Write a self-contained HTML page (styles and pictures inside, no script) and return its path.

    Args:
        path: the page, usually ``OUT/report.html``.
        result: its table heads the page (its metrics, if it has no rows); limits, versions, input
            hash, seed and settings close it.
        sections: what stands between.
    """
    path = Path(path)
    result.files["report"] = str(path)
    values = result.to_dict()
    body = [
        f"<h1>{_escape(result.title)}</h1>",
        f'<p class="meta">{_escape(result.command)} · {_escape(result.created)} · '
        f"{_escape(result.device or 'device not stated')}</p>",
        _html_table(result.table()),
        *(f"<p>{_escape(note)}</p>" for note in result.notes),
    ]
    for section in sections:
        body.append(f"<h2>{_escape(section.heading)}</h2>")
        if section.text:
            body.append(f"<p>{_escape(section.text)}</p>")
        if section.figure is not None:
            encoded = base64.b64encode(section.figure).decode()
            body.append(
                f'<figure><img alt="{_escape(section.caption)}" '
                f'src="data:image/png;base64,{encoded}">'
                f"<figcaption>{_escape(section.caption)}</figcaption></figure>"
            )
        body.append(_html_table(section.rows))
        body.append(_html_links(section.links))
    if result.limits:
        body.append(f"<h2>Limits</h2><p>{_escape(result.limits)}</p>")
    about = {
        **{f"version of {name}": number for name, number in values["versions"].items()},
        "input hash": result.data_hash,
        "seed": values["seed"],
        **values["settings"],
    }
    body.append("<h2>Settings</h2>")
    body.append(_html_table([{"name": k, "value": _setting(v)} for k, v in about.items()]))
    page = _PAGE.format(title=_escape(result.title), style=_STYLE, body="\n".join(body))
    write_text(path, page)
    return path


def figure_png(draw: Callable[[Any], None], *, width: float = 8.0, height: float = 3.6) -> bytes:
    """Return the PNG of a figure in the house's look.

    Args:
        draw: gets an empty matplotlib Figure and fills it; a $ in its texts is a dollar.
        width: inches.
        height: inches.
    """
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    look: Any = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "axes.prop_cycle": cycler(color=PALETTE),
        "legend.frameon": False,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "text.parse_math": False,
    }
    with mpl.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box
        figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def curves_png(
    panels: Mapping[str, Mapping[str, Sequence[float | None]]], *, xlabel: str = "epoch"
) -> bytes:
    """Return a PNG with one panel of line curves per entry.

    Args:
        panels: title of a panel -> name of a curve -> its values; the first stands at x = 1, None
            is left out.
        xlabel: label of the horizontal axis.

    Raises:
        ValueError: no panels.
    """
    if not panels:
        raise ValueError("panels must not be empty")

    def draw(figure: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for axes, (title, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for name, values in curves.items():
                places = [i for i, value in enumerate(values, 1) if value is not None]
                drawn = [value for value in values if value is not None]
                marker = "o" if len(places) < 25 else None
                axes.plot(places, drawn, label=name, marker=marker, markersize=3)
            axes.set(title=title, xlabel=xlabel)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if len(curves) > 1:
                axes.legend()

    return figure_png(draw, width=4.2 * max(len(panels), 2), height=3.2)


def image_grid_png(images: Sequence[Any], captions: Sequence[str], *, columns: int = 6) -> bytes:
    """Return a PNG of pictures in rows, each with a caption under it.

    Args:
        images: each (H, W) or (H, W, 3), uint8, bool or float in [0, 1], or a PIL image.
        captions: one per picture.
        columns: pictures in a row.

    Raises:
        ValueError: no images, or not as many captions.
    """
    import numpy as np

    if len(images) == 0 or len(images) != len(captions):
        raise ValueError(f"images must have one caption each, got {len(images)}, {len(captions)}")
    rows = -(-len(images) // columns)
    pictures = [np.asarray(image) for image in images]
    wide = max(1.0, min(picture.shape[1] / picture.shape[0] for picture in pictures))

    def draw(figure: Any) -> None:
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for place in places:
            place.axis("off")
        for place, pixels, caption in zip(places, pictures, captions, strict=False):
            white = 255 if pixels.dtype == np.uint8 else 1
            place.imshow(pixels, cmap="gray", vmin=0, vmax=white, interpolation="nearest")
            place.set_title(caption, fontsize=8, loc="center")

    return figure_png(draw, width=1.5 * columns * wide, height=1.85 * rows)


def describe_device(device: Any) -> str:
    """Return the device in words, e.g. ``cpu (2 threads)`` or the graphics card's name.

    Args:
        device: a torch.device.
    """
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    count = torch.get_num_threads()
    return f"{device.type} ({count} thread{'s' if count > 1 else ''}, {platform.machine()})"


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _is_numeric(rows: Sequence[Row], name: str) -> bool:
    return all(isinstance(_plain(row.get(name)), int | float | None) for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | int | float):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)  # numpy, torch


def _setting(value: Any) -> str:
    return format_value(value) if value is None or isinstance(value, bool) else str(value)


def _escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _html_table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    names = _columns(rows)
    kinds = {name: " class=n" if _is_numeric(rows, name) else "" for name in names}
    head = "".join(f"<th{kinds[name]}>{_escape(name)}</th>" for name in names)
    lines = [
        "".join(f"<td{kinds[n]}>{_escape(format_value(row.get(n)))}</td>" for n in names)
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _html_links(links: Mapping[str, str]) -> str:
    items = [
        f'<li><a href="{quote(to, errors="surrogateescape")}">{_escape(words)}</a></li>'
        for words, to in links.items()
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""


_STYLE = """
:root{color-scheme:light dark;--ink:#0f172a;--soft:#475569;--line:#e2e8f0;--back:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e2e8f0;--soft:#94a3b8;--line:#334155;--back:#0f172a}}
body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--back);
max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;line-height:1.25;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
.meta,figcaption{color:var(--soft);font-size:.9rem}.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:.8rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .8rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--soft);font-size:.85rem}td.n,th.n{text-align:right}
figure{margin:.5rem 0}img{max-width:100%;height:auto;border-radius:4px;background:#fff}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head>
<body>
{body}
</body>
</html>
"""
