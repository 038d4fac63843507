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
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from papercommons.files import write_json, write_text

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
        versions = {name: version(name) for name in (self.package, "papercommons", "torch")}
        values = dataclasses.asdict(self) | {
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
        """Print one JSON object, or the title, the table and the files, to standard output."""
        if as_json:
            print(json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=False))
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
        if self.rows:
            console.print(self.title, markup=False, highlight=False)
            table = Table(box=SIMPLE_HEAD)
            for name in _columns(self.rows):
                numeric = all(isinstance(row.get(name), int | float | None) for row in self.rows)
                table.add_column(name, justify="right" if numeric else "left", overflow="fold")
            for row in self.rows:
                table.add_row(*(format_value(row.get(name)) for name in _columns(self.rows)))
            console.print(table)
        else:
            console.print(self.title, markup=False, highlight=False)
        for line in self.notes:
            console.print(line, markup=False)
        for kind, path in self.files.items():
            console.print(f"{kind}: {path}", markup=False, highlight=False, soft_wrap=True)


def format_value(value: Any) -> str:
    """Return `value` as people read it in a table: four digits of a fraction, a dash for None.

    Args:
        value: a cell.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclasses.dataclass
class Section:
    """One part of a report page.

    Attributes:
        heading: its title.
        text: a paragraph, plain text.
        figure: PNG bytes of a picture, see `figure_png`.
        caption: what the picture shows; read out where pictures are not seen.
        rows: a table.
    """

    heading: str
    text: str = ""
    figure: bytes | None = None
    caption: str = ""
    rows: Sequence[Row] = ()


def write_report(path: str | Path, result: Result, sections: Sequence[Section] = ()) -> Path:
    """Write a self-contained HTML page (styles and pictures inside, no script) and return its path.

    Args:
        path: the page, usually ``OUT/report.html``.
        result: its table and metrics head the page; settings and limits close it.
        sections: what stands between.
    """
    path = Path(path)
    result.files["report"] = str(path)
    values = result.to_dict()
    body = [
        f"<h1>{_escape(result.title)}</h1>",
        f'<p class="meta">{_escape(result.command)} · {_escape(result.created)} · '
        f"{_escape(result.device or 'device not stated')}</p>",
        _html_table(result.rows),
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
    if result.limits:
        body.append(f"<h2>Limits</h2><p>{_escape(result.limits)}</p>")
    about = {
        **{f"version of {name}": number for name, number in values["versions"].items()},
        "input hash": result.data_hash,
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
        draw: gets an empty matplotlib Figure and fills it.
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
    }
    with mpl.rc_context(look):
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
            leaves a gap.
        xlabel: label of the horizontal axis.
    """

    def draw(figure: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for axes, (title, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for name, values in curves.items():
                points = [(i, v) for i, v in enumerate(values, 1) if v is not None]
                marker = "o" if len(points) < 25 else None
                axes.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3)
            axes.set(title=title, xlabel=xlabel)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if len(curves) > 1:
                axes.legend()

    return figure_png(draw, width=4.2 * max(len(panels), 2), height=3.2)


def image_grid_png(images: Sequence[Any], captions: Sequence[str], *, columns: int = 6) -> bytes:
    """Return a PNG of pictures in rows, each with a caption under it.

    Args:
        images: each (H, W) or (H, W, 3), uint8 or float in [0, 1].
        captions: one per picture.
        columns: pictures in a row.
    """
    rows = -(-len(images) // columns)

    def draw(figure: Any) -> None:
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for place in places:
            place.axis("off")
        for place, image, caption in zip(places, images, captions, strict=False):
            place.imshow(image, cmap="gray", interpolation="nearest")
            place.set_title(caption, fontsize=8, loc="center")

    return figure_png(draw, width=1.5 * columns, height=1.85 * rows)


def describe_device(device: Any) -> str:
    """Return the device in words, e.g. ``cpu (2 threads)`` or the graphics card's name.

    Args:
        device: a torch.device.
    """
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type} ({torch.get_num_threads()} threads, {platform.machine()})"


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return _plain(value.item()) if hasattr(value, "item") else str(value)


def _setting(value: Any) -> str:
    return str(value) if isinstance(value, float) else format_value(value)


def _escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _html_table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    names = _columns(rows)
    numeric = {n for n in names if all(isinstance(r.get(n), int | float | None) for r in rows)}
    head = "".join(
        f"<th{' class=n' if name in numeric else ''}>{_escape(name)}</th>" for name in names
    )
    lines = []
    for row in rows:
        cells = ((row.get(name), format_value(row.get(name))) for name in names)
        lines.append(
            "".join(
                f"<td{' class=n' if isinstance(v, int | float) else ''}>{_escape(shown)}</td>"
                for v, shown in cells
            )
        )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


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
<title>{title}</title><style>{style}</style></head>
<body>
{body}
</body>
</html>
"""
