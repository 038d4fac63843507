from __future__ import annotations

import json
from dataclasses import replace
from math import isnan
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from cmdfd.audit import FACTS, audit_entries
from cmdfd.auditing import AuditOptions, audit_list, separation_row
from cmdfd.entries import ClipEntry
from cmdfd.headers import read_header, with_headers
from cmdfd.lists import OFFICIAL
from papercommons.errors import DataError
from papercommons.video.writing import write_clip

FRAMES = 100


def clip(name, fake, offset, method="", person=""):
    """A clip of 4 s whose sound is so much longer."""
    return ClipEntry(
        Path(f"/x/{name}"),
        fake,
        name,
        face=person or name,
        method=method or ("fake" if fake else "real"),
        frames=FRAMES,
        samples=None if offset is None else round(16_000 * (FRAMES / 25 + offset)),
        fps=25.0,
        sample_rate=16_000.0,
    )


def gaussian(distance, count=4000, spread=0.1):
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, spread, 2 * count)
    offsets[count:] += distance * spread
    return [clip(f"{k}", int(k >= count), value) for k, value in enumerate(offsets)]


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_gaussian_offsets_have_the_analytic_auc(distance):
    found = audit_entries(gaussian(distance), draws=200).overall
    true = NormalDist().cdf(distance / 2**0.5)
    assert found.auc == pytest.approx(true, abs=0.015)
    assert found.found == max(found.auc, 1 - found.auc)
    assert found.low < true < found.high
    assert found.high - found.low < 0.03
    assert found.median_fake - found.median_real == pytest.approx(0.1 * distance, abs=0.01)
    words = "none seen" if not distance else f"leak: {'longer' if distance > 0 else 'shorter'}"
    assert found.verdict.startswith(words)


def test_the_sign_is_kept_and_reversed():
    clips = gaussian(1.0, 300)
    other = [replace(c, entire=1 - c.entire) for c in clips]
    one, two = (audit_entries(c, draws=20).overall for c in (clips, other))
    assert one.auc == pytest.approx(1 - two.auc)
    assert one.found == pytest.approx(two.found)


def test_few_people_make_only_a_clear_leak():
    slight = [clip(f"{k}", int(k >= 40), 0.01 * (k % 40) - 0.05 * (k >= 40)) for k in range(80)]
    three = [replace(one, face=f"id{number % 3}") for number, one in enumerate(slight)]
    found = audit_entries(three, draws=200).overall
    assert not found.low <= 0.5 <= found.high
    assert found.people == 3
    assert found.verdict == "unclear: 3 people"
    clear = [replace(one, samples=(one.samples or 0) + 9000 * one.entire) for one in three]
    assert audit_entries(clear, draws=200).overall.verdict == "leak: longer sound"


def test_ties_count_half():
    clips = [clip("a", 0, 0.0), clip("b", 0, 0.1), clip("c", 1, 0.1), clip("d", 1, 0.1)]
    found = audit_entries(clips, draws=50).overall
    assert found.auc == 0.75
    assert found.ties == 0.5


def test_a_constant_tells_nothing():
    found = audit_entries([clip(f"{k}", k % 2, 0.04) for k in range(20)], draws=50).overall
    assert (found.auc, found.low, found.high, found.ties) == (0.5, 0.5, 0.5, 1.0)
    assert found.verdict == "constant"


def test_numbers_equal_but_for_rounding_are_ties():
    clips = [replace(clip("a", 0, 0.0), fps=25.0), replace(clip("b", 1, 0.0), fps=25.000001)]
    assert audit_entries(clips, draws=5).overall.auc == 0.5


def test_each_method_stands_against_all_real_clips():
    clips = [clip(f"r{k}", 0, 0.0) for k in range(10)]
    clips += [clip(f"a{k}", 1, 0.1, "longer") for k in range(10)]
    clips += [clip(f"b{k}", 1, -0.1, "shorter") for k in range(30)]
    clips += [clip("u", 1, None, "unknown")]
    audit = audit_entries(clips, draws=50)
    rows = {one.method: one for one in audit.separations}
    assert list(rows) == ["all", "longer", "shorter", "unknown"]
    assert (rows["longer"].auc, rows["shorter"].auc, rows["all"].auc) == (1.0, 0.0, 0.25)
    assert rows["shorter"].found == 1.0
    assert (rows["longer"].fakes, rows["longer"].reals) == (10, 10)
    assert isnan(rows["unknown"].auc)
    assert rows["unknown"].verdict == "one class"
    assert (audit.clips, audit.unknown) == (51, 1)
    assert list(audit.facts) == list(FACTS)
    assert audit.facts["sound_seconds"] == audit.facts["offset"] == 0.25
    assert audit.facts["picture_seconds"] == 0.5
    assert sum(row["clips"] for row in audit.balance) == 51


def test_people_are_resampled_not_clips():
    one = [clip(f"{k}", k % 2, v) for k, v in enumerate(np.random.default_rng(0).normal(0, 1, 80))]
    four = [
        replace(c, name=f"{c.name}-{k}", face=c.name, video=Path(f"/x/{c.name}-{k}"))
        for c in one
        for k in range(4)
    ]
    a, b = (audit_entries(c, draws=300).overall for c in (one, four))
    assert b.auc == a.auc
    assert b.high - b.low == pytest.approx(a.high - a.low, abs=0.03)


def test_numbers_out_of_range():
    with pytest.raises(ValueError, match="draws >= 1, got 1 and 0"):
        audit_entries([clip("a", 0, 0.0)], draws=0)
    with pytest.raises(ValueError, match="needs entries"):
        audit_entries([])


def write_list(path, clips, extra=""):
    rows = [
        f"{c.name},{c.name}.wav,{c.name}.mp4,{c.entire},0,{c.entire},1,1,{float(c.frames)},"
        f"{c.samples},25.0,16000"
        for c in clips
    ]
    path.write_text("\n".join([",".join(OFFICIAL) + extra, *rows]) + "\n")
    return str(path)


def test_the_command_on_an_official_list(tmp_path):
    clips = [
        clip(f"{'fake' if f else 'origin'}+id{k:05d}", f, 0.1 * f + 0.01 * (k % 3))
        for f in (0, 1)
        for k in range(12)
    ]
    path = write_list(tmp_path / "list.csv", clips)
    other = write_list(tmp_path / "train.csv", clips[:6])
    result = audit_list([path, other], out=str(tmp_path / "out"), options=AuditOptions(draws=50))
    assert result.metrics["auc"] == 1.0
    assert result.rows[0] == separation_row(audit_entries(clips, draws=50).overall)
    assert result.metrics["shared"][0]["people"] == 6
    assert any("list and train share 6 people" in note for note in result.notes)
    page = (tmp_path / "out/report.html").read_text()
    assert "Sound minus picture" in page
    assert "What splits share" in page
    assert json.loads((tmp_path / "out/result.json").read_text())["metrics"]["auc"] == 1.0
    with pytest.raises(DataError, match="--overwrite"):
        audit_list(path, out=str(tmp_path / "out"))


def test_a_list_without_lengths(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.txt").write_text("a.mp4 0\n")
    with pytest.raises(DataError, match="pass --measure"):
        audit_list(str(tmp_path / "list.txt"))
    measured = AuditOptions(measure=True)
    with pytest.raises(DataError, match=r"line 1: .*a\.mp4: is empty"):
        audit_list(str(tmp_path / "list.txt"), options=measured)


def write_mp4(path, frames, samples):
    pictures = np.zeros((frames, 16, 16), np.uint8)
    waveform = np.random.default_rng(0).normal(0, 0.1, samples)
    write_clip(path, pictures, fps=25, waveform=waveform)


def test_lengths_come_from_the_files(tmp_path):
    for k in range(3):
        write_mp4(tmp_path / f"real/{k}.mp4", 10 + k, 640 * (10 + k))
        write_mp4(tmp_path / f"fake/{k}.mp4", 10 + k, 640 * (12 + k))
    header = read_header(tmp_path / "fake/0.mp4")
    assert (header.frames, header.sample_rate) == (10, 16_000)
    assert header.video_seconds == pytest.approx(0.4, abs=1e-3)
    assert header.audio_seconds == pytest.approx(0.48, abs=1e-3)
    result = audit_list(str(tmp_path), options=AuditOptions(measure=True, draws=20))
    assert result.metrics["auc"] == 1.0
    assert result.rows[0]["fake (s)"] == pytest.approx(0.08, abs=2e-3)
    (tmp_path / "fake/3.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"3.mp4.*1 such files; or pass --skip-bad"):
        audit_list(str(tmp_path), options=AuditOptions(measure=True))
    skipping = AuditOptions(measure=True, skip_bad=True, draws=20)
    assert audit_list(str(tmp_path), options=skipping).metrics["left_out"] == 1


def test_a_container_that_states_nothing(shared_files):
    path = shared_files / "data/av/bbaf2n.mpg"
    header = read_header(path)
    assert header.frames == 75
    assert header.video_seconds == pytest.approx(3.0, abs=1e-6)
    assert header.audio_seconds == pytest.approx(3.0, abs=0.1)
    (entry,), faults = with_headers([ClipEntry(path, 0, "x")])
    assert entry.offset == pytest.approx(header.audio_seconds - 3.0, abs=1e-4)
    assert faults == []
