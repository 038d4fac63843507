"""A saved network on its device, and what it says about faces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from papercommons.cli import ComputeOptions
from papercommons.devices import autocast, compute_device
from papercommons.metrics.score_calibration import ScoreCalibration, remembered_calibration
from torch import Tensor

from semforge.model import SemForgeNet
from semforge.options import PACKAGE
from semforge.saved import load_network

if TYPE_CHECKING:
    from semforge.data import FaceBatch


class Scores(NamedTuple):
    """What a network says about faces, on the CPU.

    Attributes:
        names: of the faces.
        videos: which each is from; "" where it is a picture of its own.
        methods: how each was made.
        labels: 0, 1 or 2 = unknown, int8, shape (N, n of the graph).
        scores: float32, shape (N, n of the head).
        log_odds: of each node being 1, float32, shape (N, n of the head).
        probabilities: of each node being 1, float32, shape (N, n of the head).
        decoded: most probable labels, uint8, shape (N, n of the head).
    """

    names: list[str]
    videos: list[str]
    methods: list[str]
    labels: Tensor
    scores: Tensor
    log_odds: Tensor
    probabilities: Tensor
    decoded: Tensor


@dataclass
class Inspector:
    """A network that looks at faces.

    Attributes:
        net: on its device, in evaluation mode.
        device: where it computes.
        precision: 32-true, bf16-mixed or 16-mixed.
        calibration: of the root, if it has one.
        config: config.json of the saved network; empty if it was not saved.
    """

    net: SemForgeNet
    device: torch.device
    precision: str
    calibration: ScoreCalibration | None
    config: dict[str, Any]

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Return scores, float32 on the CPU, shape (N, n of the head).

        Args:
            images: RGB in [0, 1], float32, shape (N, 3, S, S).
        """
        with autocast(self.device, self.precision):
            found: Tensor = self.net(self.net.normalised(images.to(self.device)))
        return found.float().cpu()

    def predict(self, batches: Iterable[FaceBatch]) -> Scores:
        """Return what the network says about batches of faces.

        Args:
            batches: one or more faces each, at least one batch.
        """
        seen = [(batch, self.scores(batch.images)) for batch in batches]
        labels = torch.cat([batch.labels for batch, _ in seen])
        names, videos, methods = (
            [text for batch, _ in seen for text in getattr(batch, part)]
            for part in ("names", "videos", "methods")
        )
        scores = torch.cat([scores for _, scores in seen])
        return Scores(names, videos, methods, labels, scores, *self.read(scores))

    def read(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log odds, probabilities and most probable labels, on the CPU, shape (N, n) each.

        Args:
            scores: shape (N, n of the head).
        """
        scores = scores.to(self.device)
        on, off = self.net.log_probabilities(scores)
        found = (on - off, self.net.probabilities(scores), self.net.decode(scores))
        return tuple(part.cpu() for part in found)  # type: ignore[return-value]


def open_inspector(checkpoint: str, run: ComputeOptions) -> Inspector:
    """Return a saved network, ready to look at faces.

    Args:
        checkpoint: folder of a run, or of a saved network.
        run: where and how to compute.

    Raises:
        DataError: see `semforge.saved.load_network`.
        ValueError: the device is not there.
    """
    net, config = load_network(checkpoint)
    device = compute_device(run)
    return Inspector(
        net.to(device), device, run.precision, remembered_calibration(config, PACKAGE), config
    )
