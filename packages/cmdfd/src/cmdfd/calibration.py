"""Calibrations of a network's scores as files."""

from __future__ import annotations

import json
from pathlib import Path

from papercommons.errors import DataError, reason
from papercommons.files import write_json
from papercommons.metrics.score_calibration import ScoreCalibration, remembered_calibration

from cmdfd.options import PACKAGE

_LARGEST = 1 << 20  # bytes of a calibration file


def save_calibration(path: Path, found: ScoreCalibration, *, weights: str, clips: str) -> None:
    """Write a calibration as JSON.

    Args:
        path: the file.
        found: the calibration.
        weights: hash of the network whose scores it is about.
        clips: what it was fitted on, in words.
    """
    about = {"package": PACKAGE, "weights": weights, "clips": clips}
    write_json(path, {**about, "calibration": found._asdict()})


def read_calibration(path: str | Path, *, weights: str) -> ScoreCalibration:
    """Return the calibration that `save_calibration` wrote.

    Args:
        path: the file, or the folder of cmdfd-eval that holds it.
        weights: hash of the network that is used now.

    Raises:
        DataError: missing, not readable, or of another network.
    """
    file = Path(path) / "calibration.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file; cmdfd-eval --calibrate-on LIST --out writes one")
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError("too large")
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not readable as a calibration ({reason(error)})") from None
    found = None
    if isinstance(kept, dict):
        found = remembered_calibration(kept, PACKAGE, source=str(file))
    if found is None:
        raise DataError(f"{file}: holds no calibration; cmdfd-eval --calibrate-on writes one")
    if kept.get("weights") != weights:
        raise DataError(
            f"{file}: was fitted to another network (hash {kept.get('weights')}, not {weights}); "
            "run cmdfd-eval --calibrate-on with this one"
        )
    return found
