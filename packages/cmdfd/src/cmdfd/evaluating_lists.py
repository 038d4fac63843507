"""Lists that are judged: opened, prepared where they are not, and scored clip by clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from papercommons.cli import track
from papercommons.errors import DataError
from papercommons.files import hash_files, hash_texts

from cmdfd.entries import ClipEntry, ClipList
from cmdfd.layouts import open_clips
from cmdfd.options import DataOptions
from cmdfd.prepared import PreparedClips, detector_for, is_prepared, open_prepared
from cmdfd.preparing_files import Preparation
from cmdfd.preparing_lists import is_corpus, prepare_list
from cmdfd.scoring import Detector, KeptScores
from cmdfd.scoring_options import Baseline, FaceOptions, Resample, WindowOptions

if TYPE_CHECKING:
    from cmdfd.data import AVSample
    from cmdfd.teachers import ContentTeacher
    from cmdfd.windows import FrameScores

Split = Literal["auto", "train", "val", "test", "all"]


@dataclass
class OpenList:
    """A list whose clips are ready to be looked at.

    Attributes:
        name: plain, of what is written about it.
        split: of it: train, val, test or all.
        clips: prepared.
        originals: the same clips with the lengths of their files; None where these are not known.
        faults: clips that were left out, and why, a line each.
        notes: what is worth knowing.
        data_hash: of the list.
    """

    name: str
    split: str
    clips: PreparedClips
    originals: list[ClipEntry] | None
    faults: list[str]
    notes: list[str]
    data_hash: str

    @property
    def files(self) -> set[str]:
        """The pictures that the clips were made of, or their own."""
        return {str(entry.video) for entry in self.originals or self.clips.entries}


@dataclass
class ScoredList:
    """A list and what is said of it.

    Attributes:
        name: see `OpenList`.
        entries: its clips.
        curves: of each clip.
        baselines: name -> score of each clip, float64, shape (N,).
    """

    name: str
    entries: Sequence[ClipEntry]
    curves: Sequence[FrameScores]
    baselines: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def scores(self) -> np.ndarray:
        """Of each clip, float64, shape (N,)."""
        return np.array([found.score for found in self.curves])

    @property
    def fake(self) -> np.ndarray:
        """Whether each clip is fake, bool, shape (N,)."""
        return np.array([entry.entire == 1 for entry in self.entries])

    @property
    def methods(self) -> list[str]:
        """Of the fakes, sorted."""
        return sorted({entry.method for entry in self.entries if entry.entire})

    def of_method(self, method: str) -> np.ndarray:
        """Return which clips are real or a fake of this method, bool, shape (N,)."""
        return np.array([not e.entire or e.method == method for e in self.entries])

    def sources(self, resample: Resample) -> list[str]:
        """Return what intervals draw, one per clip: its first person if known, or itself."""
        if resample == "clip":
            return [entry.name for entry in self.entries]
        return [(entry.identities or (entry.name,))[0] for entry in self.entries]


def open_list(
    place: str,
    name: str,
    split: Split,
    detector: Detector,
    cache: Path,
    options: DataOptions,
    faces: FaceOptions,
    *,
    num_workers: int = 0,
    wish: str = "test",
) -> OpenList:
    """Return the clips of a list, prepared as those that the network was trained on.

    Args:
        place: prepared folder or list, or a raw list, folder or set.
        name: see `OpenList`.
        split: which; auto is the one wished for, or all where there are no splits.
        detector: knows how its faces were cut.
        cache: folder where raw clips are prepared; what is there already is kept.
        options: how lists are read.
        faces: how raw clips are cut.
        num_workers: processes that prepare.
        wish: what auto means.

    Raises:
        DataError: there is no such split, a clip cannot be used, or faces are of another size.
    """
    faults: list[str] = []
    if is_prepared(place):
        whole = open_prepared(place)
        chosen, split_name = choose_split(ClipList(whole.entries, place), split, wish)
        clips = PreparedClips(chosen.entries, whole.crop)
        notes: list[str] = []
    else:
        raw = open_clips(place, layout=options.layout, root=options.root, skip_bad=options.skip_bad)
        chosen, split_name = choose_split(raw, split, wish)
        how = Preparation(
            detector=detector.finder(faces.detector, made=is_corpus(place)),
            size=detector.crop["size"],
            face=faces.number,
            swapped=bool(detector.crop.get("swapped")),
            partial=faces.partial,
        )
        names = [ascii(str(entry.video)) for entry in chosen]
        folder = cache / hash_texts([str(Path(place).resolve()), repr(how), *names])
        report = prepare_list(
            chosen, folder, how, num_workers=num_workers, skip_bad=options.skip_bad
        )
        faults = [*raw.faults, *report.faults]
        clips, notes = open_prepared(folder), list(raw.notes)
    if clips.size != detector.crop["size"]:
        raise DataError(
            f"{place}: faces of {clips.size} pixels, the network's are {detector.crop['size']}; "
            f"prepare the clips again with --size {detector.crop['size']}"
        )
    notes += crop_notes(place, clips.crop, detector.crop)
    return OpenList(
        name,
        split_name,
        clips,
        clips.originals(),
        faults,
        notes,
        hash_texts([hash_files([clips.entries[0].video.parents[2] / "list.csv"]), split_name]),
    )


def choose_split(clips: ClipList, split: Split, wish: str) -> tuple[ClipList, str]:
    """Return the clips of a split, and which one it is: train, val, test or all.

    Args:
        clips: of a list or folder.
        split: which; auto is the one wished for, or all where there are none.
        wish: what auto means.

    Raises:
        DataError: there is no such split.
    """
    there = sorted({entry.split for entry in clips} - {""})
    wanted: str = split
    if split == "auto":
        wanted = wish if there else "all"
    if wanted == "all":
        return clips, wanted
    entries = clips.of_split(wanted)
    if not entries:
        known = f"it has {', '.join(there)}" if there else "it has no splits"
        raise DataError(f"{clips.source}: no split {wanted}: {known}; name one, or all")
    return replace(clips, entries=entries), wanted


def crop_notes(place: str, crop: Any, wanted: Any) -> list[str]:
    """Return what differs between how faces were cut here and in training, as notes.

    Args:
        place: the list.
        crop: of its clips, see `cmdfd.prepared.crop_settings`.
        wanted: of the network's.
    """
    here, there = detector_for(crop), detector_for(wanted)
    if here != there:
        return [f"{place}: FACES FOUND BY {here.upper()}, those of the training by {there.upper()}"]
    if bool(crop.get("swapped")) != bool(wanted.get("swapped")):
        return [f"{place}: GREY IS MIXED IN ANOTHER WAY than in training (swapped)"]
    return []


def score_list(
    opened: OpenList, detector: Detector, windows: WindowOptions, kept: KeptScores
) -> list[FrameScores]:
    """Return what the network says of each clip, in their order.

    Args:
        opened: the clips.
        detector: the network.
        windows: how clips are looked at.
        kept: what an interrupted run said of unchanged clips; gets what is said now.
    """
    entries = opened.clips.entries
    digests = [hash_files([e.video, e.video.with_name("sound.npy")]) for e in entries]
    curves = {}
    for number, (entry, digest) in enumerate(zip(entries, digests, strict=True)):
        found = kept.get(entry.name, digest)
        if found is not None and len(found.margin) == entry.frames:
            curves[number] = found

    def missing() -> Iterator[tuple[int, AVSample]]:
        left = [number for number in range(len(entries)) if number not in curves]
        for number in track(left, f"clips of {opened.name}"):
            yield number, opened.clips.read(number, 0, opened.clips.lengths[number])

    for number, found in detector.score(missing(), windows):
        curves[number] = found
        kept.add(entries[number].name, digests[number], found)
    return [curves[number] for number in range(len(entries))]


def baseline_scores(
    clips: PreparedClips,
    curves: Sequence[FrameScores],
    detector: Detector,
    wanted: Sequence[Baseline],
    teacher: ContentTeacher | None,
) -> dict[str, np.ndarray]:
    """Return the scores of simpler ways, higher = more fake, float64, shape (N,) each.

    Args:
        clips: N of them.
        curves: what the network says of them.
        detector: the network: ``correlation`` is minus its mean c_t, ``sync`` how unsure the best
            offset of its embeddings is.
        wanted: names.
        teacher: for ``divergence``: how far its recognisers disagree.

    Raises:
        DataError: the teacher needs features of the lips, and a clip has none.
    """
    from cmdfd.baselines import divergence_scores, sync_scores

    found: dict[str, np.ndarray] = {}
    for name in wanted:
        if name == "correlation":
            found[name] = -np.array([c.correlation.mean(dtype=np.float64) for c in curves])
        elif name == "sync":
            said = sync_scores(clips, detector.net, legacy=bool(detector.config.get("legacy")))
            found[name] = said.double().numpy()
        elif teacher is not None:
            seen = clips.giving_lips() if teacher.needs_lips else clips
            found[name] = divergence_scores(seen, teacher).double().numpy()
    return found
