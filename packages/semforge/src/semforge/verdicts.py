"""What a network says of one face: fake or real, what was altered, and where it looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from semforge.crops import Cropper
from semforge.detection import SeenFace
from semforge.inspector import Inspector
from semforge.occlusion import gradient_map, occlusion_map

Heatmap = Literal["gradient", "occlusion", "none"]
Row = dict[str, Any]
BOX = ("left", "top", "right", "bottom")
CERTAIN = 1e4  # a score that leaves no doubt


@dataclass(frozen=True)
class Look:
    """How files are looked at.

    Attributes:
        cropper: how faces are cut.
        n_frames: taken of a video.
        batch_size: faces computed at once.
        threshold: on the log odds of the root.
        heatmap: which map is drawn.
        node: what it is about, a place among the nodes.
    """

    cropper: Cropper
    n_frames: int
    batch_size: int
    threshold: float
    heatmap: Heatmap
    node: int

    @property
    def probability(self) -> float:
        """The threshold on p(fake)."""
        return float(torch.tensor(self.threshold, dtype=torch.double).sigmoid())


@dataclass(frozen=True)
class Verdict:
    """What is said of one face.

    Attributes:
        row: of the table of predictions.
        of_frames: p(fake) of each frame, float64, shape (K,).
        decoded: nodes of the most probable labels.
        probabilities: node -> p, the mean over the frames.
    """

    row: Row
    of_frames: np.ndarray
    decoded: list[str]
    probabilities: dict[str, float]


def judge_face(
    face: SeenFace, number: int, inspector: Inspector, look: Look, about: Row
) -> Verdict:
    """Return what is said of a face: the mean over its frames, and the labels of the mean scores.

    The labels are the most probable of those in which the root is what the verdict says.

    Args:
        face: its crops.
        number: of the face in its file, from 1.
        inspector: the network.
        look: how it is looked at.
        about: what the row begins with.

    Raises:
        RuntimeError: the scores are not finite.
    """
    scores = torch.cat(
        [inspector.scores(images) for images in as_images(face.crops).split(look.batch_size)]
    )
    log_odds, p, _ = inspector.read(scores)
    if not torch.isfinite(log_odds).all():
        raise RuntimeError(f"{about['file']}: scores are not finite; try --precision 32-true")
    means = p.double().mean(0)
    nodes = inspector.net.nodes
    if len(p) == 1:  # log odds keep what p = 1 has lost
        fake = bool(log_odds[0, 0] >= look.threshold)
    else:
        fake = bool(means[0] >= look.probability)
    decided = scores.mean(0, keepdim=True)
    decided[:, 0] = CERTAIN if fake else -CERTAIN
    _, _, state = inspector.read(decided)
    decoded = [node for node, on in zip(nodes, state[0].tolist(), strict=True) if on]
    row: Row = {**about, "face": number, "prediction": "fake" if fake else "real"}
    row["p_fake"] = round(float(means[0]), 6)
    if inspector.calibration is not None:
        even = inspector.calibration.probability(log_odds[:, 0]).mean()
        row["p_calibrated"] = round(float(even), 6)
    named = [node for node in decoded if node != nodes[0]]
    row["altered"] = ", ".join(named) or ("not named" if fake else "nothing")
    row["frames"] = len(p)
    box = face.boxes[len(face.boxes) // 2]
    if box is not None:
        row |= {side: round(float(v), 1) for side, v in zip(BOX, box, strict=True)}
    probabilities = dict(zip(nodes, means.tolist(), strict=True))
    row |= {f"p_{node}": round(value, 6) for node, value in probabilities.items()}
    return Verdict(row, p[:, 0].double().numpy(), decoded, probabilities)


def heat_map(crop: np.ndarray, inspector: Inspector, look: Look) -> tuple[np.ndarray | None, str]:
    """Return the map of a face and what it shows in words; None if none is wanted.

    Args:
        crop: RGB, uint8, shape (S, S, 3).
        inspector: the network.
        look: which map, and about which node.
    """
    if look.heatmap == "none":
        return None, ""
    net = inspector.net

    def log_odds(images: Tensor) -> Tensor:
        on, off = net.log_probabilities(net(net.normalised(images)))
        return (on - off)[:, look.node]

    image = as_images(crop[None])[0].to(inspector.device)
    node = net.nodes[look.node]
    if look.heatmap == "gradient":
        return gradient_map(log_odds, image).cpu().numpy(), f"gradient of {node}"
    side = crop.shape[0]
    step = max(1, side // 12)
    found = occlusion_map(log_odds, image, patch=2 * step, stride=step, batch_size=look.batch_size)
    return found.cpu().numpy(), f"what speaks for {node}"


def as_images(crops: np.ndarray) -> Tensor:
    """Return crops, uint8 (N, S, S, 3), as float32 in [0, 1], (N, 3, S, S)."""
    return torch.from_numpy(np.array(crops)).permute(0, 3, 1, 2).float() / 255
