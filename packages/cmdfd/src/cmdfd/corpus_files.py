"""A made corpus as files: mp4 clips, their list, and what is said when.

====================  ==============================================================================
videos/PART/NAME.mp4  25 frames per second, H.264, and mono AAC at 16 kHz; real and fake clips go
                      through the same encoder with settings from the same draw
videos/PART/NAME.json the phonemes that are heard, the mouth that is seen, and the row of the list
list.csv              the official columns, and Split, Method, Face, Voice, Segments
facts.json            the recipe and counts; written last
====================  ==============================================================================

Frames and samples before encoding are the same on every machine up to rounding. The encoders'
output depends on their versions, and H.264 may differ a little from run to run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import track
from papercommons.errors import DataError, reason
from papercommons.files import atomic_path, hash_files, prepare_out, write_csv, write_json
from papercommons.versions import installed_version
from papercommons.video.writing import write_clip

from cmdfd.corpus import SPLITS, Planned, Recipe, divide_people, make_planned, plan_corpus
from cmdfd.kinds import TalkingClip
from cmdfd.lists import text_of_segments
from cmdfd.mouths import FPS, frame_classes
from cmdfd.options import PACKAGE
from cmdfd.speech import SAMPLE_RATE, Phoneme
from cmdfd.talking import make_speaker

MAX_NOTE = 1 << 24  # bytes


def write_corpus(
    out: str | Path,
    recipe: Recipe,
    *,
    num_workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a corpus, and return what facts.json says of it.

    Args:
        out: folder, see the module.
        recipe: what is made.
        num_workers: processes that make clips; 0 is this one.
        resume: go on where an earlier call with the same recipe was interrupted.
        overwrite: empty `out` first if it holds an earlier run.

    Raises:
        ValueError: num_workers is negative.
        DataError: PyAV or the extra ``cmdfd[speech]`` is missing, too few clips or people, `out` is
            not empty, or there is no run with this recipe to go on with.
    """
    if num_workers < 0:
        raise ValueError(f"num_workers must be >= 0, got {num_workers}")
    planned = plan_corpus(recipe)
    people = {
        split: [make_speaker(number, recipe.seed).name for number in numbers]
        for split, numbers in divide_people(recipe).items()
    }
    settings = recipe.settings()
    folder = prepare_out(str(out), settings, resume=resume, overwrite=overwrite)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    rows = _make_all(partial(write_planned, folder, recipe, digest), planned, num_workers)
    write_csv(folder / "list.csv", rows)
    counts = Counter((row["Split"], row["Method"]) for row in rows)
    facts = {
        "settings": settings,
        "version": installed_version(PACKAGE),
        "people": people,
        "methods": {
            method: {split: counts[split, method] for split in people}
            for method in dict.fromkeys(row["Method"] for row in rows)
        },
        "seconds": sum(plan.frames for plan in planned) / FPS,
        "data_hash": hash_files([folder / "list.csv"]),
    }
    write_json(folder / "facts.json", facts)
    return facts


def write_planned(folder: Path, recipe: Recipe, digest: str, plan: Planned) -> dict[str, Any]:
    """Write one clip and its note, unless they are there, and return its row of the list.

    Args:
        folder: of the corpus.
        recipe: of the corpus.
        digest: of the recipe.
        plan: of the clip.
    """
    video = folder / "videos" / plan.split / f"{plan.name}.mp4"
    note = video.with_suffix(".json")
    kept = _kept(note, digest)
    if kept is not None and video.is_file():
        return kept
    clip = make_planned(plan, recipe)
    rng = np.random.default_rng((recipe.seed, SPLITS.index(plan.split), 55, plan.number))
    quality = int(rng.integers(recipe.quality[0], recipe.quality[1] + 1))
    write_clip(video, clip.frames, fps=FPS, waveform=clip.waveform, quality=quality, overwrite=True)
    row = row_of(clip, plan, video.relative_to(folder).as_posix())
    value = {
        "recipe": digest,
        "row": row,
        "quality": quality,
        "phonemes": [[p.symbol, round(p.begin, 4), round(p.end, 4)] for p in clip.phonemes],
        "mouths": clip.mouths.round(3).tolist(),
    }
    with atomic_path(note) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return row


def row_of(clip: TalkingClip, plan: Planned, path: str) -> dict[str, Any]:
    """Return the row of a clip in the official columns and ours.

    Args:
        clip: as made.
        plan: of it.
        path: of the video below the list's folder.
    """
    truth = clip.truth
    return {
        "ID_Name": plan.name,
        "Audio_Path": path,
        "Video_Path": path,
        "ENtire_Label": truth.entire,
        "Audio_Label": truth.audio,
        "Video_Label": truth.video,
        "Identi_Label": truth.same_person,
        "Sync_Label": truth.in_sync,
        "Frame_Len": float(len(clip.frames)),
        "Audio_Len": len(clip.waveform),
        "FPS": FPS,
        "AudioSamRate": SAMPLE_RATE,
        "Split": plan.split,
        "Method": clip.kind,
        "Face": clip.face,
        "Voice": clip.voice,
        "Segments": text_of_segments(clip.segments),
    }


def read_phonemes(video: str | Path) -> list[Phoneme]:
    """Return what is heard in a clip of a made corpus.

    Args:
        video: the clip; its note lies beside it.

    Raises:
        DataError: the note is missing or not as described.
    """
    path = Path(video).with_suffix(".json")
    if not path.is_file():
        raise DataError(f"{path}: no such file; only clips of a made corpus say what is heard")
    if path.stat().st_size > MAX_NOTE:
        raise DataError(f"{path}: larger than {MAX_NOTE >> 20} MiB; make the corpus again")
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["phonemes"]
        found = [Phoneme(str(symbol), float(b), float(e)) for symbol, b, e in listed]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path}: not a note of a made clip ({reason(error)})") from None
    if not found:
        raise DataError(f"{path}: lists no phonemes; make the corpus again")
    return found


def read_classes(video: str | Path, frames: int) -> np.ndarray:
    """Return what is heard in each frame of a made clip, see `cmdfd.mouths.frame_classes`.

    Args:
        video: see `read_phonemes`.
        frames: T.

    Raises:
        DataError: see `read_phonemes`.
    """
    return frame_classes(read_phonemes(video), frames)


def _make_all(make: Any, planned: Sequence[Planned], num_workers: int) -> list[dict[str, Any]]:
    if not num_workers:
        return [make(plan) for plan in track(planned, "making clips")]
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        done: Iterable[dict[str, Any]] = pool.map(make, planned, chunksize=4)
        return [row for _, row in zip(track(planned, "making clips"), done, strict=True)]


def _kept(note: Path, digest: str) -> dict[str, Any] | None:
    """Return the row of a clip that an interrupted call has made, None if it is to be made."""
    try:
        value = json.loads(note.read_text(encoding="utf-8"))
        return value["row"] if value["recipe"] == digest else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
