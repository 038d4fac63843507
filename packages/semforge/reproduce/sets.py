"""The pictures of the experiment: forged faces of six speakers, two left out in turn.

Protocol 1 trains on all attributes and tests on the speakers left out, with the families of
generators it knows and with unseen ones. Protocol 2 trains without one attribute and tests on it.
Real test pictures are the same in both. Labels of training forgeries can be hidden in part, and
training has no val split: it goes on for a fixed time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from semforge.entries import REAL, Entry, FaceList
from semforge.fingerprints import UNSEEN_FAMILIES
from semforge.graph import LabelGraph
from semforge.inference import UNKNOWN
from semforge.layouts import open_faces
from semforge.synthesis import synthesize

HIDDEN = 0.4


def folds(faces: Path) -> list[tuple[str, str]]:
    """Return the pairs of speakers that are left out, each speaker once.

    Args:
        faces: folder of one video per speaker.
    """
    speakers = sorted(path.stem for path in faces.glob("*.mpg"))
    return list(zip(speakers[::2], speakers[1::2], strict=True))


def make_set(
    faces: Path, out: Path, left_out: tuple[str, str], *, per_speaker: int, size: int = 64
) -> FaceList:
    """Return the pictures of a fold with all labels; they are made if they are not there yet.

    Args:
        faces: folder of one video per speaker.
        out: folder of all folds.
        left_out: speakers of the test split.
        per_speaker: pictures.
        size: side of the pictures in pixels.
    """
    graph = LabelGraph.ffsc()
    folder = out / "+".join(left_out)
    if not (folder / "facts.json").is_file():
        speakers = [speaker for pair in folds(faces) for speaker in pair]
        rest = [speaker for speaker in speakers if speaker not in left_out]
        synthesize(
            faces,
            folder,
            per_speaker * len(speakers),
            graph=graph,
            size=size,
            splits={"train": rest, "test": left_out},
            n_frames=25,
            overwrite=True,
        )
    return open_faces(folder, graph)


def protocol_1(made: FaceList) -> tuple[FaceList, dict[str, FaceList]]:
    """Return what is trained on, and the tests: ``seen`` and ``unseen`` families.

    Args:
        made: see `make_set`.
    """
    tests = {
        "seen": _of(made, "test", lambda entry: _family(entry) not in UNSEEN_FAMILIES),
        "unseen": _of(made, "test", lambda entry: _family(entry) in ("", *UNSEEN_FAMILIES)),
    }
    return _of(made, "train", lambda entry: True), tests


def protocol_2(made: FaceList, attribute: str) -> tuple[FaceList, dict[str, FaceList]]:
    """Return what is trained on, without an attribute, and the tests on it.

    Args:
        made: see `make_set`.
        attribute: expression, age or identity.
    """
    train = _of(made, "train", lambda entry: not entry.method.startswith(attribute))
    tests = {
        "left out": _of(
            made,
            "test",
            lambda e: (
                e.method == REAL
                or (e.method.startswith(attribute) and _family(e) not in UNSEEN_FAMILIES)
            ),
        )
    }
    return train, tests


def hide_labels(faces: FaceList, share: float, *, seed: int = 0) -> FaceList:
    """Return the pictures with a share of the forgeries' attributes and regions unknown.

    Args:
        faces: of the train split.
        share: in [0, 1].
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.random(faces.labels.shape) < share
    hidden[:, 0] = False
    hidden[faces.labels[:, 0] == 0] = False
    labels = np.where(hidden, UNKNOWN, faces.labels).tolist()
    entries = zip(faces.entries, labels, strict=True)
    return FaceList(tuple(replace(e, label=tuple(label)) for e, label in entries), faces.source)


def _family(entry: Entry) -> str:
    return entry.method.partition("-")[2]


def _of(made: FaceList, split: str, wanted: Callable[[Entry], bool]) -> FaceList:
    entries = [entry for entry in made.entries if entry.split == split and wanted(entry)]
    return FaceList(tuple(entries), made.source)
