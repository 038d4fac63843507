"""A network on its device, what it says of clips, and what an interrupted run said already."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from papercommons.checkpoint import (
    load_weights,
    read_config,
    read_state_dict,
    read_torch_file,
)
from papercommons.cli import ComputeOptions
from papercommons.devices import autocast, compute_device
from papercommons.errors import DataError, reason
from papercommons.files import hash_saved
from papercommons.metrics.score_calibration import ScoreCalibration, remembered_calibration
from torch import Tensor

from cmdfd.calibration import read_calibration
from cmdfd.data import AVSample, legacy_mfcc
from cmdfd.features import clip_mfcc
from cmdfd.losses import correlation
from cmdfd.model import CMDFDNet
from cmdfd.official import load_official
from cmdfd.one_stream import build_net
from cmdfd.options import PACKAGE
from cmdfd.prepared import crop_settings, detector_for
from cmdfd.saved import load_network
from cmdfd.scoring_options import WindowOptions
from cmdfd.tracks import DetectorName
from cmdfd.windows import FrameScores, K, score_clips

DIGITS = 5  # of scores, so that a resumed run has the very numbers of an uninterrupted one


@dataclass
class Detector:
    """A network that says real or fake.

    Attributes:
        net: on its device, in evaluation mode.
        device: where it computes.
        precision: 32-true, bf16-mixed or 16-mixed.
        config: of the saved network: crop, made_by, ...
        weights: hash of the saved network.
        calibration: of its scores, if there is one.
    """

    net: CMDFDNet
    device: torch.device
    precision: str
    config: dict[str, Any]
    weights: str
    calibration: ScoreCalibration | None = None

    @property
    def crop(self) -> dict[str, Any]:
        """How the faces of its training were cut, see `cmdfd.prepared.crop_settings`."""
        crop: dict[str, Any] = self.config["crop"]
        return crop

    def finder(self, wanted: str, *, made: bool) -> DetectorName:
        """Return what finds faces in clips that are not prepared.

        Args:
            wanted: by the user; ``auto`` is what found those of the training.
            made: the clips are of cmdfd-synth.
        """
        if wanted != "auto":
            return cast("DetectorName", wanted)
        return "none" if made and self.crop.get("detector") == "none" else detector_for(self.crop)

    @torch.no_grad()
    def judge(self, mfcc: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return fake minus real logit and c_t of each frame, float32 on the CPU, (B, T) each.

        Args:
            mfcc: see `CMDFDNet.forward`.
            frames: likewise.
        """
        with autocast(self.device, self.precision):
            out = self.net(mfcc.to(self.device), frames.to(self.device))
        real, fake = out.logits.float().unbind(2)
        together = correlation(out.audio.float(), out.visual.float())
        return (fake - real).cpu(), together.cpu()

    def score(
        self, clips: Iterable[tuple[K, AVSample]], how: WindowOptions
    ) -> Iterator[tuple[K, FrameScores]]:
        """Give the scores of clips, see `cmdfd.windows.score_clips`, rounded to 5 digits.

        Args:
            clips: unique key -> the whole clip.
            how: windows.

        Raises:
            DataError: a score is not finite.
        """
        sizes = how.windows
        if self.net.config["legacy_concat"]:  # neighbours in a batch would leak into each other
            sizes["frames_per_batch"] = 1
        features = legacy_mfcc if self.config.get("legacy") else clip_mfcc
        for key, found in score_clips(self.judge, clips, features=features, **sizes):
            yield key, unlisted(listed(found))


def open_detector(checkpoint: str, run: ComputeOptions, calibration: str | None = None) -> Detector:
    """Return a network, ready to look at clips.

    Args:
        checkpoint: folder of a run or of a saved network, a checkpoint (.ckpt) of a run, or a file
            of official weights.
        run: where and how to compute.
        calibration: file or folder of cmdfd-eval; None is the network's own, if it has one.

    Raises:
        DataError: missing, broken, lacks weights (they are listed), or a calibration of another
            network.
        ValueError: the device is not there.
    """
    net, config = _load(Path(checkpoint))
    weights = hash_saved(checkpoint)
    crop = config.get("crop")
    if not isinstance(crop, dict) or not isinstance(crop.get("size"), int):
        raise DataError(f"{checkpoint}: config.json does not say how faces were cut (crop, size)")
    device = compute_device(run)
    found = remembered_calibration(config, PACKAGE)
    if calibration is not None:
        found = read_calibration(calibration, weights=weights)
    return Detector(net.to(device).eval(), device, run.precision, config, weights, found)


def _load(path: Path) -> tuple[CMDFDNet, dict[str, Any]]:
    if not path.is_file():
        return load_network(path)
    if path.suffix == ".ckpt":
        return _load_checkpoint(path)
    crop = crop_settings("none", 112, swapped=True)  # whole frames, as the official code has them
    return load_official(path), {"crop": crop, "made_by": str(path)}


def _load_checkpoint(path: Path) -> tuple[CMDFDNet, dict[str, Any]]:
    """Return the network of a checkpoint, with the configuration that its run saved beside it."""
    kept = read_torch_file(path)
    settings = kept.get("hyper_parameters") if isinstance(kept, Mapping) else None
    sizes = settings.get("net") if isinstance(settings, Mapping) else None
    if not isinstance(sizes, dict):
        raise DataError(f"{path}: no checkpoint of cmdfd-train (hyper_parameters: net)")
    try:
        net = build_net(sizes)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: hyper_parameters: {reason(error)}") from error
    load_weights(net, read_state_dict(path, part="net"), source=str(path))
    beside = path.parent / "export" / "config.json"
    if not beside.is_file():
        raise DataError(
            f"{path}: {beside} is missing, which says how faces were cut; give the folder of the "
            "run, or of a saved network"
        )
    config = read_config(beside.parent)
    config.pop("calibration", None)  # of the best epoch, not of this one
    return net, config


class KeptScores:
    """Scores of clips in a file, one line each; a run that was cut short goes on from them.

    Args:
        path: JSON lines; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._found: dict[str, tuple[str, FrameScores]] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            row = json.loads(line)
            margin, together = (np.array(row[k], np.float32) for k in ("margin", "correlation"))
            if margin.ndim == 1 and margin.shape == together.shape and len(margin):
                self._found[row["name"]] = (row["hash"], FrameScores(margin, together))
        except (ValueError, KeyError, TypeError):  # a line that the end of a run cut off
            return

    def get(self, name: str, digest: str) -> FrameScores | None:
        """Return the scores of a clip, None where it is new or changed."""
        kept = self._found.get(name)
        return kept[1] if kept is not None and kept[0] == digest else None

    def add(self, name: str, digest: str, found: FrameScores) -> None:
        """Keep the scores of a clip."""
        if self.path is None:
            return
        row = {"name": name, "hash": digest, **listed(found)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * (not self._ends_well()) + json.dumps(row) + "\n")

    def _ends_well(self) -> bool:
        """Return whether the last line is whole."""
        assert self.path is not None
        if not self.path.is_file() or not self.path.stat().st_size:
            return True
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() == b"\n"


def listed(found: FrameScores) -> dict[str, list[float]]:
    """Return the curves as plain numbers of 5 digits."""
    curves = (("margin", found.margin), ("correlation", found.correlation))
    return {name: [round(float(v), DIGITS) for v in values] for name, values in curves}


def unlisted(kept: Mapping[str, Sequence[float]]) -> FrameScores:
    """Return the curves that `listed` wrote."""
    return FrameScores(*(np.array(kept[k], np.float32) for k in ("margin", "correlation")))
