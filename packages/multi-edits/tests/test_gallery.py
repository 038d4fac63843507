"""Galleries: order, pages, and the pictures in them."""

from __future__ import annotations

import base64
import io
import re
from html import unescape

import numpy as np
import pytest

pytest.importorskip("diffusers")

from multi_edits.gallery import BEST, PER_PAGE, Entry, Gallery, show_change, show_pair
from papercommons.pictures import side_by_side
from papercommons.report import Result, write_report
from PIL import Image


def picture(color, size=(8, 8)):
    return Image.new("RGB", size, color)


def entries(count, *, scored=True):
    return [
        Entry(
            f"r{k}",
            f"text {k} <b>",
            lambda k=k: {"source": picture((k, 0, 0)), "edited": picture((0, k, 0))},
            float(k) if scored else None,
        )
        for k in range(count)
    ]


def headings(sections):
    return [section.heading for section in sections]


def test_the_best_and_the_worst_come_first():
    mixed = [*entries(20), Entry("unknown", "", lambda: {"source": picture("red")}, None)]
    gallery = Gallery(mixed, by="PSNR")
    assert [entry.name for entry in gallery.shown] == [
        *(f"r{k}" for k in range(19, -1, -1)),
        "unknown",
    ]
    high = [f"r{k}" for k in range(19, 19 - BEST, -1)]
    low = [f"r{k}" for k in range(BEST)]
    assert headings(gallery.sections()) == [
        "All records",
        "Highest PSNR",
        *high,
        "Lowest PSNR",
        *low,
    ]
    assert list(gallery.sections()[0].links.values()) == ["gallery/001.html"]


def test_a_small_set_is_shown_whole_and_has_no_pages(tmp_path):
    gallery = Gallery(entries(3), by="PSNR")
    assert headings(gallery.sections()) == ["Records", "r2", "r1", "r0"]
    gallery.write_pages(tmp_path, Result("multi-edits", "x", "title"))
    assert list(tmp_path.iterdir()) == []


def test_without_scores_records_keep_their_order():
    names = headings(Gallery(entries(20, scored=False), by="PSNR").sections())
    assert names == ["All records", "The first records", *(f"r{k}" for k in range(BEST))]


def test_pages_hold_every_record_once_and_lead_to_each_other(tmp_path):
    count = 2 * PER_PAGE + 5
    result = Result("multi-edits", "multi-edits-predict", "title", notes=["of the run"])
    gallery = Gallery(entries(count), by="PSNR")
    gallery.write_pages(tmp_path, result)
    write_report(tmp_path / "report.html", result, gallery.sections())
    pages = sorted((tmp_path / "gallery").iterdir())
    assert [page.name for page in pages] == ["001.html", "002.html", "003.html"]
    found = [re.findall(r"<h2>(r\d+)</h2>", page.read_text()) for page in pages]
    assert [name for page in found for name in page] == [f"r{k}" for k in reversed(range(count))]
    for page in [*pages, tmp_path / "report.html"]:
        text = page.read_text()
        links = [unescape(link) for link in re.findall(r'<a href="([^"]+)"', text)]
        assert links
        assert all((page.parent / link).is_file() for link in links)
        assert "text 7 <b>" not in text  # it is escaped
        assert "<script" not in text
        assert "http" not in text.replace("http-equiv", "")
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', pages[0].read_text())
    assert len(images) == PER_PAGE
    first = Image.open(io.BytesIO(base64.b64decode(images[0])))
    assert first.getpixel((5, 5)) == (count - 1, 0, 0)
    assert result.files == {"report": str(tmp_path / "report.html")}


def test_pictures_are_scaled_into_one_row():
    row = Image.open(io.BytesIO(side_by_side([picture("red"), picture("blue", (800, 400))], 100)))
    assert row.size == (96 + 6 + 100, 96)  # 8 pixels are enlarged as often as they fit
    assert row.getpixel((50, 50)) == (255, 0, 0)
    assert row.getpixel((150, 25)) == (0, 0, 255)
    assert row.getpixel((150, 80)) == (255, 255, 255)


def test_changed_pixels_are_red():
    source = picture((100, 100, 100), (64, 64))
    changed = np.array(source)
    changed[:32] = 200
    shown = np.asarray(show_change(source, Image.fromarray(changed))).astype(int)
    top, bottom = shown[: len(shown) // 3], shown[-len(shown) // 3 :]
    assert (top[..., 0] - top[..., 1]).min() > 100
    assert (bottom[..., 0] == bottom[..., 1]).all()


def test_a_record_shows_source_results_change_and_mask():
    source, mask = picture("red"), np.ones((8, 8), bool)
    names = list(show_pair(source, {"edited": picture("blue")}, mask))
    assert names == ["source", "edited", "changed (red)", "to be edited (yellow)"]
    two = {"a": picture("blue"), "b": picture("green")}
    assert list(show_pair(source, two, None)) == ["source", "a", "b"]
