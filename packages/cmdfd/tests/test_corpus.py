from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cmdfd.auditing import AuditOptions, audit_list
from cmdfd.clips import read_clip
from cmdfd.corpus import Recipe, as_arrays, divide_people, make_planned, plan_corpus
from cmdfd.corpus_files import read_classes, read_phonemes, write_corpus
from cmdfd.kinds import KINDS, TRUTH, make_clip
from cmdfd.layouts import open_clips
from cmdfd.mouths import OPENING
from cmdfd.splits import find_leaks
from cmdfd.talking import film, make_speaker
from papercommons.errors import DataError

SMALL = Recipe(count=120, people=12, seconds=(1.0, 1.4), size=32)


def lag_of(clip, reach=12):
    """Frames by which the mouth is behind the sound, where opening and loudness agree best."""
    count = len(clip.frames)
    loud = np.sqrt(np.square(clip.waveform.reshape(count, 640)).mean(1))[reach : count - reach]
    opening = clip.mouths[:, OPENING]
    agree = [
        np.corrcoef(opening[reach + k : count - reach + k], loud)[0, 1]
        for k in range(-reach, reach + 1)
    ]
    return int(np.argmax(agree)) - reach, np.array(agree)


def made(kind, number=0, frames=150):
    pytest.importorskip("espeakng_loader")
    rng = np.random.default_rng((KINDS.index(kind), number))
    face, other = make_speaker(number), make_speaker(number + 100)
    return make_clip(kind, face, frames, rng, other=other, size=32)


def test_people_are_in_one_part_and_lengths_tell_nothing():
    parts = divide_people(SMALL)
    assert sorted(k for members in parts.values() for k in members) == list(range(12))
    planned = plan_corpus(SMALL)
    assert len({plan.name for plan in planned}) == len(planned) == 120
    for plan in planned:
        assert plan.face in parts[plan.split]
        assert plan.voice in parts[plan.split]
        assert (plan.voice != plan.face) == (plan.kind == "swap")
    shapes = {}
    for plan in planned:
        same = shapes.setdefault((plan.split, plan.number), (plan.frames, plan.face))
        assert same == (plan.frames, plan.face)
    counts = Counter((plan.split, plan.kind) for plan in planned)
    assert counts["train", "lipsync"] == 30
    assert counts["train", "real"] + counts["train", "lag"] == 30
    assert counts["train", "lag"] == 7
    assert ("train", "swap") not in counts
    assert {counts["test", kind] for kind in ("lipsync", "rhythm", "swap", "shift")} <= {3, 4}


@pytest.mark.parametrize("count", range(121, 125))
def test_there_are_as_many_clips_as_asked_for(count):
    assert len(plan_corpus(replace(SMALL, count=count))) == count


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"kinds": ("real", "lag")}, "a real and a fake one"),
        ({"kinds": ("real", "lipsnyc")}, "no kind 'lipsnyc'; did you mean lipsync"),
        ({"real_share": 1.0}, "real_share must be in"),
        ({"seconds": (2.0, 1.0)}, "seconds must be"),
        ({"size": 33}, "size must be even"),
        ({"quality": (20, 60)}, "quality must be"),
        ({"val_fraction": 0.7}, "val_fraction must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_recipes_that_cannot_be(change, what):
    with pytest.raises(ValueError, match=what):
        replace(SMALL, **change)


def test_too_few_people_or_clips():
    with pytest.raises(DataError, match="raise people"):
        plan_corpus(replace(SMALL, people=4))
    with pytest.raises(DataError, match=r"split (val|test) gets \d clips, too few for"):
        plan_corpus(replace(SMALL, count=12))


def test_the_mouth_says_what_is_heard():
    agree = np.mean([lag_of(made("real", k))[1] for k in range(4)], axis=0)
    assert np.argmax(agree) - 12 == 0
    assert agree[12] > 0.35
    assert agree[12] > agree[[0, 4, 8, 16, 20, 24]].max() + 0.2


def test_shifts_and_lags_are_as_far_as_they_say():
    for kind, low, high in (("lag", 1, 2), ("shift", 6, 9)):
        found = [abs(lag_of(made(kind, k, 200))[0]) for k in range(3)]
        assert all(low - 1 <= lag <= high + 1 for lag in found), (kind, found)


def test_a_mouth_of_loudness_agrees_and_one_of_other_words_does_not():
    at_zero = {kind: lag_of(made(kind))[1][12] for kind in ("lipsync_clean", "swap")}
    assert at_zero["lipsync_clean"] > 0.6
    assert at_zero["swap"] < 0.4


def test_clips_have_the_truth_and_form_that_they_state():
    for kind in KINDS:
        clip = made(kind, frames=30)
        assert clip.frames.shape == (30, 32, 32, 3)
        assert clip.frames.dtype == np.uint8
        assert clip.waveform.shape == (30 * 640,)
        assert clip.waveform.dtype == np.float32
        assert 0.2 < np.abs(clip.waveform).max() <= 1
        assert clip.classes.shape == (30,)
        assert clip.truth == TRUTH[kind]
        assert (clip.face != clip.voice) == (kind == "swap")
        assert bool(clip.segments) == (kind == "partial")
    again = made("partial", frames=30)
    assert np.array_equal(again.frames, made("partial", frames=30).frames)


def test_a_part_is_forged_and_the_rest_is_not():
    pytest.importorskip("espeakng_loader")
    face = make_speaker(1)
    clip = make_clip("partial", face, 75, np.random.default_rng(5), size=32)
    ((begin, end),) = clip.segments
    real = make_clip("real", face, 75, np.random.default_rng(5), size=32)
    assert np.array_equal(clip.phonemes, real.phonemes)  # the same words are heard
    apart = np.abs(clip.mouths - real.mouths).max(1)
    inside = np.zeros(75, bool)
    inside[round(begin * 25) : round(end * 25)] = True
    edges = np.convolve(inside, np.ones(5), "same") > 0
    assert apart[~edges].max() < 1e-9
    assert apart[inside].mean() > 0.1


def test_numbers_out_of_range():
    face, rng = make_speaker(0), np.random.default_rng(0)
    with pytest.raises(ValueError, match="frames >= 25"):
        make_clip("real", face, 10, rng)
    with pytest.raises(ValueError, match="needs other"):
        make_clip("swap", face, 50, rng)


def test_frames_show_the_mouth_and_the_trace_only_that():
    mouths = np.tile([0.0, 0.5, 0.0, 0.0], (6, 1))
    mouths[3:, OPENING] = 1.0
    face = make_speaker(3)
    film_of = lambda **how: film(  # noqa: E731
        face, mouths, np.random.default_rng(2), size=64, **how
    ).astype(int)
    frames, marked = film_of(), film_of(patched=np.array([0, 0, 0, 0, 1, 1.0]))
    lower, upper = frames[:, 36:56, 16:48].min((1, 2, 3)), frames[:, 4:30]
    assert lower[3:].max() < 0.75 * lower[:3].min() + 30
    assert np.abs(upper[3:].mean((1, 2, 3)) - upper[:3].mean((1, 2, 3))).max() < 8
    assert np.array_equal(frames[:4], marked[:4])
    changed = np.abs(frames[4:] - marked[4:]).max((0, 3)) > 0
    assert 60 < changed.sum() < 0.35 * changed.size
    assert not changed[:32].any()
    assert len({make_speaker(k).skin for k in range(10)}) == 10


def test_arrays_for_the_detector():
    clips = [made(kind, frames=30) for kind in ("real", "shift")]
    data = as_arrays(clips)
    assert list(data.labels) == [0, 1]
    assert data.frames[0].shape == (30, 32, 32)
    assert data.names[1] == "shift-1"


FILES = Recipe(
    count=20,
    kinds=("real", "lag", "lipsync", "swap"),
    unseen=("partial",),
    people=8,
    seconds=(1.0, 1.4),
    size=32,
    val_fraction=0.0,
    test_fraction=0.5,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("corpus") / "out"
    return folder, write_corpus(folder, FILES)


def test_files_and_their_list(corpus):
    folder, facts = corpus
    clips = open_clips(folder)
    assert clips.notes == ()
    assert len(clips) == 20
    assert facts["methods"]["swap"] == {"train": 2, "test": 2}
    assert find_leaks({part: clips.of_split(part) for part in ("train", "test")}) == []
    for entry in clips:
        assert (entry.entire, entry.audio_fake, entry.video_fake) == TRUTH[entry.method][:3]
        assert (entry.face != entry.voice) == (entry.method == "swap")
        assert bool(entry.segments) == (entry.method == "partial")
    entry = next(e for e in clips if e.method == "real")
    clip = read_clip(entry.video)
    assert len(clip.frames) == entry.frames
    plan = next(p for p in plan_corpus(FILES) if p.name == entry.name)
    drawn = make_planned(plan, FILES)
    assert np.abs(clip.frames.astype(int) - drawn.frames).mean() < 8
    assert np.corrcoef(clip.waveform, drawn.waveform)[0, 1] > 0.98
    said = read_phonemes(entry.video)
    assert [p.symbol for p in said] == [p.symbol for p in drawn.phonemes]
    assert np.array_equal(read_classes(entry.video, entry.frames), drawn.classes)


def test_lengths_of_the_files_are_at_chance(corpus):
    folder, _ = corpus
    for measure in (False, True):
        result = audit_list(str(folder), options=AuditOptions(measure=measure, draws=50))
        assert result.metrics["auc"] == pytest.approx(0.5, abs=1e-9)
        assert abs(result.metrics["facts"]["picture_seconds"] - 0.5) < 0.3
        assert result.metrics["shared"] == []


def test_going_on_makes_only_what_is_missing(corpus):
    folder, facts = corpus
    videos = sorted((folder / "videos").rglob("*.mp4"))
    videos[3].unlink()
    videos[5].with_suffix(".json").write_text("{")
    before = {path: path.stat().st_mtime_ns for path in videos if path.exists()}
    assert write_corpus(folder, FILES, resume=True) == facts
    changed = [path for path in videos if before.get(path) != path.stat().st_mtime_ns]
    assert changed == [videos[3], videos[5]]
    with pytest.raises(DataError, match="--overwrite"):
        write_corpus(folder, FILES)
    with pytest.raises(DataError, match="cannot resume: seed was 0 and is now 1"):
        write_corpus(folder, replace(FILES, seed=1), resume=True)


def test_notes_that_are_none(tmp_path):
    with pytest.raises(DataError, match="only clips of a made corpus say"):
        read_phonemes(tmp_path / "a.mp4")
    for value in ("{", "[]", json.dumps({"phonemes": [["a", 1]]}), '{"phonemes": []}'):
        (tmp_path / "a.json").write_text(value)
        with pytest.raises(DataError, match=r"not a note of a made clip|lists no phonemes"):
            read_phonemes(tmp_path / "a.mp4")
