from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from papercommons.report import (
    Result,
    Section,
    curves_png,
    describe_device,
    figure_png,
    format_value,
    image_grid_png,
    write_report,
)
from papercommons.versions import installed_version
from PIL import Image

EVIL = "<script>alert('x')</script>\"&"


def make(**changes):
    values = {
        "package": "papercommons",
        "command": "toy-train",
        "title": "A toy",
        "rows": [{"name": "a", "auc": 0.91234, "n": 12345}, {"name": "b", "auc": math.nan}],
        "metrics": {"auc": 0.91234},
        "settings": {"seed": 12345, "lr": 1e-05, "grey": True, "path": None, "names": ["a", "b"]},
        "limits": "Only a toy.",
        "data_hash": "cafe",
        "device": "cpu",
    }
    return Result(**values | changes)


def png_size(data):
    assert data.startswith(b"\x89PNG")
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.size


class Page(HTMLParser):
    """Collects the tags, their attributes, and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data + "\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (math.nan, "–"),
        (-math.inf, "–"),
        (True, "yes"),
        (False, "no"),
        (0.0, "0.0000"),
        (0.98765, "0.9877"),
        (-2.5, "-2.5000"),
        (0.000123456, "0.0001235"),
        (9999.5, "9999.5000"),
        (12345.6, "12,346"),
        (1.5e12, "1.5e+12"),
        (1234567, "1,234,567"),
        ("text\nof a file\x1b", "text of a file\\x1b"),
        (np.float32(0.5), "0.5000"),
        (np.int64(1000), "1,000"),
        (torch.tensor(0.25), "0.2500"),
        (torch.tensor(math.nan), "–"),
        (np.bool_(True), "yes"),
    ],
)
def test_values_as_people_read_them(value, shown):
    assert format_value(value) == shown


def test_everything_becomes_plain():
    rows = [
        {
            "t": torch.tensor([1.0, math.inf]),
            "n": np.array([[1, 2]]),
            "p": Path("a/b"),
            "deep": {"x": (np.float32(2), math.nan)},
            3: True,
        }
    ]
    plain = make(rows=rows, metrics={"nan": math.nan}).to_dict()
    assert plain["rows"] == [
        {
            "t": [1.0, None],
            "n": [[1, 2]],
            "p": str(Path("a/b")),
            "deep": {"x": [2.0, None]},
            "3": True,
        }
    ]
    assert plain["metrics"] == {"nan": None}
    json.dumps(plain, allow_nan=False)


def test_result_carries_what_repeats_it():
    plain = make().to_dict()
    assert plain["versions"]["papercommons"] == installed_version("papercommons")
    assert plain["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert plain["versions"]["python"]
    assert (plain["seed"], plain["data_hash"], plain["device"]) == (12345, "cafe", "cpu")
    assert plain["settings"]["lr"] == 1e-05
    assert plain["limits"] == "Only a toy."
    assert plain["created"].endswith("+00:00")


def test_versions_of_bare_sources_are_unknown():
    assert installed_version("no-such-distribution-anywhere") == "unknown"
    assert make(package="no-such-distribution").to_dict()["versions"]["no-such-distribution"]


def test_save_names_itself(tmp_path):
    result = make(rows=[{"file": os.fsdecode(b"\xff.png"), "x": math.nan}])
    path = result.save(tmp_path / "new")
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["files"] == {"result": str(path)}
    assert read["rows"] == [{"file": "\udcff.png", "x": None}]


def test_printed_json_is_one_ascii_line(capsys):
    make(title="é 中").print(as_json=True)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.isascii()
    assert json.loads(printed)["title"] == "é 中"


def test_printed_table(capsys):
    make(notes=["a note " * 30], files={"report": "x" * 200 + "/report.html"}).print()
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "A toy"
    table = [line.split() for line in lines if line]
    assert ["name", "auc", "n"] in table
    assert ["a", "0.9123", "12,345"] in table
    assert ["b", "–", "–"] in table
    assert ("a note " * 30).strip() in lines
    assert f"report: {'x' * 200}/report.html" in lines


def test_metrics_are_printed_where_there_are_no_rows(capsys):
    make(rows=[]).print()
    assert ["auc", "0.9123"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_marks_in_names_are_no_commands(capsys):
    name = "[red]a[/nothing] :smile:\x1b[2J.png"
    make(title=name, rows=[{name: name}], notes=[name], files={"a": name}).print()
    printed = capsys.readouterr().out
    assert printed.count("[red]a[/nothing] :smile:\\x1b[2J.png") == 5
    assert "\x1b" not in printed


def test_a_terminal_without_unicode():
    code = (
        "from papercommons.report import Result\n"
        "Result('papercommons', 'x', 'Z\\u00fcrich', rows=[{'a': None}]).print()\n"
    )
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Z?rich" in done.stdout


def test_page_is_self_contained(tmp_path):
    picture = figure_png(lambda figure: figure.subplots().plot([1, 2]))
    sections = [Section("Curves", "Text", picture, "A caption", [{"x": 1}])]
    result = make()
    path = write_report(tmp_path / "new" / "report.html", result, sections)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "http:" not in text
    assert "https:" not in text
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in (
        page.attributes
    )
    assert not {"script", "link", "iframe"} & set(page.tags)
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")
    assert ("alt", "A caption") in page.attributes
    assert result.files["report"] == str(path)
    for words in ("A toy", "Only a toy.", "0.9123", "Curves", "Text", "cpu", "toy-train"):
        assert words in page.text


def test_page_tells_versions_seed_hash_and_settings(tmp_path):
    page = Page(write_report(tmp_path / "a.html", make()).read_text(encoding="utf-8"))
    words = page.text.split("\n")

    def after(name):
        return words[words.index(name) + 1]

    assert after("version of papercommons") == installed_version("papercommons")
    assert after("input hash") == "cafe"
    assert after("seed") == "12345"
    assert after("lr") == "1e-05"
    assert after("grey") == "yes"
    assert after("path") == "–"


def test_page_tells_that_there_is_no_seed(tmp_path):
    path = write_report(tmp_path / "a.html", make(settings={}, data_hash=None))
    words = Page(path.read_text(encoding="utf-8")).text.split("\n")
    assert words[words.index("seed") + 1] == words[words.index("input hash") + 1] == "–"


def test_page_escapes_what_users_wrote(tmp_path):
    result = make(
        title=EVIL,
        command=EVIL,
        device=EVIL,
        limits=EVIL,
        notes=[EVIL],
        rows=[{EVIL: EVIL}],
        settings={EVIL: EVIL},
        data_hash=EVIL,
    )
    sections = [Section(EVIL, EVIL, figure_png(lambda figure: None), EVIL, [{EVIL: EVIL}])]
    text = write_report(tmp_path / "a.html", result, sections).read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert page.text.count(EVIL) >= 10
    assert ("alt", EVIL) in page.attributes


def test_page_leads_to_others_beside_it(tmp_path):
    links = {"a & b": "scans/a b.html", EVIL: EVIL, "c": "javascript:c", "d": "é#?\udcff"}
    page = Page(
        write_report(tmp_path / "a.html", make(), [Section("Scans", links=links)]).read_text(
            encoding="utf-8"
        )
    )
    assert "script" not in page.tags
    assert all(words in page.text for words in links if words.isascii())
    leads = [value for name, value in page.attributes if name == "href"]
    assert leads[0] == "scans/a%20b.html"
    assert leads[2:] == ["javascript%3Ac", "%C3%A9%23%3F%FF"]
    assert not set("<>\"'&") & set(leads[1])


def test_page_survives_braces_and_odd_names(tmp_path):
    result = make(title="{x} %s \udcff")
    assert "{x} %s" in write_report(tmp_path / "a.html", result).read_text(encoding="utf-8")


def test_figures_are_png_of_the_size_asked_for():
    assert png_size(figure_png(lambda figure: None, width=4, height=2)) == (480, 240)


def test_figures_leave_the_users_look_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figure_png(lambda figure: figure.subplots())
    assert dict(mpl.rcParams) == before


def test_curves():
    panels = {
        "loss $": {"train_$x": [1.0, None, 0.5], "val 中": [None, math.nan, 0.25]},
        "none": {"a": [None, None]},
    }
    width, height = png_size(curves_png(panels, xlabel="epoch $"))
    assert width > height
    assert png_size(curves_png({"one": {"a": [0.1] * 100}}))
    with pytest.raises(ValueError, match="panels must not be empty"):
        curves_png({})


def test_curves_draw_what_is_there(monkeypatch):
    drawn = []
    from matplotlib.axes import Axes

    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda *a, **k: drawn.append((*a[1:], k["label"])) or plot(*a, **k)
    )
    curves_png({"t": {"a": [0.5, None, 0.25]}})
    assert drawn == [([1, 3], [0.5, 0.25], "a")]


def grey_at(data, left, top):
    return Image.open(io.BytesIO(data)).convert("L").getpixel((left, top))


def test_grid_shows_grey_values_as_they_are():
    for value in (200, 200 / 255):
        image = np.full((8, 8), value, np.uint8 if value > 1 else np.float64)
        data = image_grid_png([image], [""], columns=1)
        width, height = png_size(data)
        assert abs(grey_at(data, width // 2, height // 2) - 200) <= 2


def test_grid_takes_every_kind_of_picture():
    images = [
        np.zeros((4, 4, 3), np.uint8),
        np.ones((4, 4), bool),
        np.zeros((4, 4, 3)),
        Image.new("RGB", (5, 3)),
        torch.zeros(4, 4),
    ]
    data = image_grid_png(images, ["$\\frac$", "b", "中", "", "[x]"], columns=3)
    assert png_size(data) == (540, 444)


@pytest.mark.parametrize(("images", "captions"), [([], []), ([np.zeros((2, 2))], ["a", "b"])])
def test_grid_needs_a_caption_each(images, captions):
    with pytest.raises(ValueError, match="images must have one caption each, got"):
        image_grid_png(images, captions)


def test_device_in_words():
    assert describe_device(torch.device("cpu")).startswith("cpu (")
