"""Options of cmdfd-eval and cmdfd-predict; `papercommons.cli` makes flags of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from papercommons.errors import DataError
from papercommons.files import check_out, find_saved

from cmdfd.entries import FPS, LEAST_FRAMES
from cmdfd.options import CropOptions
from cmdfd.teaching_saved import HUGGING_FACE, check_teacher

if TYPE_CHECKING:
    import numpy as np

Resample = Literal["person", "clip"]
Baseline = Literal["correlation", "sync", "divergence"]


@dataclass(frozen=True)
class WindowOptions:
    """Windows, and forged parts.

    Attributes:
        window: seconds the network sees at once; longer clips are seen by windows.
        hop: seconds from one window to the next; where they overlap, the mean counts.
        frames_per_batch: frames computed at once; fewer need less memory.
        part_threshold: forged parts lie above this score; that of whole clips if not given.
        part_smooth: seconds of the running mean in which forged parts are looked for.
        part_least: seconds of the shortest part.
        part_gap: parts no further apart, in seconds, are one.
    """

    window: float = 5.0
    hop: float = 1.0
    frames_per_batch: int = 500
    part_threshold: float | None = None
    part_smooth: float = 0.36
    part_least: float = 0.2
    part_gap: float = 0.12

    def __post_init__(self) -> None:
        if not 0.2 <= self.window <= 60:
            raise ValueError(f"--window must be in [0.2, 60] seconds, got {self.window:g}")
        if not 0.04 <= self.hop <= self.window:
            raise ValueError(
                f"--hop must be in [0.04, --window {self.window:g}] seconds, got {self.hop:g}"
            )
        if self.frames_per_batch < 1:
            raise ValueError(f"--frames-per-batch must be >= 1, got {self.frames_per_batch}")
        for name in ("part_smooth", "part_least", "part_gap"):
            if not 0 <= getattr(self, name) <= 60:
                raise ValueError(
                    f"--{name.replace('_', '-')} must be in [0, 60] seconds, got "
                    f"{getattr(self, name):g}"
                )

    @property
    def windows(self) -> dict[str, int]:
        """The same for `cmdfd.windows.score_clips`, in frames."""
        return {
            "window": max(LEAST_FRAMES, round(self.window * FPS)),
            "hop": max(1, round(self.hop * FPS)),
            "frames_per_batch": self.frames_per_batch,
        }

    def find_parts(self, margin: np.ndarray, threshold: float) -> np.ndarray:
        """Return the forged parts of a clip, see `cmdfd.segments.find_segments`.

        Args:
            margin: of each frame, shape (T,).
            threshold: of whole clips.
        """
        from cmdfd.segments import find_segments

        at = threshold if self.part_threshold is None else self.part_threshold
        return find_segments(margin, threshold=at, **self._parts)

    @property
    def _parts(self) -> dict[str, int]:
        return {
            "smooth": 2 * (round(self.part_smooth * FPS) // 2) + 1,
            "least": max(1, round(self.part_least * FPS)),
            "gap": round(self.part_gap * FPS),
        }


@dataclass(frozen=True)
class FaceOptions:
    """How faces are cut, of clips that are not prepared.

    Attributes:
        detector: lbp (scikit-image's), mtcnn where facenet_pytorch is installed, or none: the whole
            picture is the face; auto is as in training (none for clips of cmdfd-synth).
        face: which of several: largest, or its number by size, 2 for the second largest.
        partial: of files that break off, take what can be read; else they are refused.
    """

    detector: Literal["auto", "lbp", "mtcnn", "none"] = "auto"
    face: str = "largest"
    partial: bool = False

    def __post_init__(self) -> None:
        CropOptions(face=self.face)

    @property
    def number(self) -> int | Literal["largest"]:
        """Which face, as `cmdfd.preparation.prepare_clip` takes it."""
        return "largest" if self.face == "largest" else int(self.face)


def check_judged(
    checkpoint: str,
    threshold: float | None,
    calibrate_on: str | None,
    calibration: str | None,
    baselines: Sequence[str] | None = None,
    teacher: str | None = None,
) -> list[str]:
    """Check what clips are judged with, before anything heavy is imported.

    Args:
        checkpoint: the network.
        threshold: on the score, or None.
        calibrate_on: list for a calibration, or None.
        calibration: file of one, or None.
        baselines: names of more scores.
        teacher: for the baseline ``divergence``.

    Returns:
        what the teacher is read from, see `cmdfd.teaching_saved.check_teacher`.

    Raises:
        DataError: no network, calibration or teacher is there.
        ValueError: options that exclude or need each other, or a threshold that is no score.
    """
    if not Path(checkpoint).is_file():
        find_saved(checkpoint)
    if calibration is not None and not Path(calibration).exists():
        raise DataError(f"{calibration}: no such file; --calibration takes cmdfd-eval's")
    if calibration is not None and calibrate_on is not None:
        raise ValueError("--calibration and --calibrate-on exclude each other; give one")
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"--threshold must be a finite score, got {threshold}")
    if ("divergence" in (baselines or ())) != (teacher is not None):
        raise ValueError("--baselines divergence and --teacher go together; give both or neither")
    if teacher is None:
        return []
    if teacher.startswith(HUGGING_FACE):
        raise DataError(f"{teacher}: has no lip reader; cmdfd-teach --hf-asr makes such a teacher")
    return check_teacher(teacher)


def check_outputs(
    out: str | None, *, resume: bool, overwrite: bool, read: Iterable[str | None]
) -> None:
    """Check that a run may write into `out`, see `papercommons.files.check_out`.

    Args:
        out: folder of the run; None writes nothing.
        resume: go on with the run in it.
        overwrite: empty it first.
        read: what the command reads; none of it must lie in `out`.

    Raises:
        DataError: it may not.
        ValueError: there is no `out` to resume.
    """
    if out is None:
        if resume:
            raise ValueError("--resume goes on with the run in --out; give it")
        return
    check_out(out, resume=resume, overwrite=overwrite, go_on="--resume", keep=read)


def check_curve(curve: str | None, *, replace: bool, read: Iterable[str | None] = ()) -> None:
    """Check that a CSV file can be written to `curve`, and make its folder.

    Args:
        curve: the file, or None.
        replace: it may be there already.
        read: what the command reads; `curve` must be none of it.

    Raises:
        DataError: it cannot.
        OSError: its folder cannot be made.
    """
    if curve is None:
        return
    path = Path(curve)
    if path.suffix.lower() != ".csv" or path.is_dir():
        raise DataError(f"{curve}: --curve takes a file that ends in .csv")
    if path.exists() and not replace:
        raise DataError(f"{curve}: exists; choose another --curve or pass --overwrite")
    if path.resolve() in {Path(place).resolve() for place in read if place is not None}:
        raise DataError(f"{curve}: --curve would replace what this command reads; choose another")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{curve}: its folder cannot be written to; choose another --curve")
