"""Face detectors that work offline; a detector is any function from an image to its faces."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from papercommons.errors import DataError, missing_library
from papercommons.faces.boxes import Face, overlap

Detector = Callable[[np.ndarray], list[Face]]

DETECTORS = ("lbp", "mtcnn")


def open_detector(name: str = "lbp") -> Detector:
    """Return the detector called `name`.

    Boxes of different detectors hold different parts of the head, so a network is to be used with
    the detector it was trained with.

    Args:
        name: ``lbp`` (`LbpDetector`) or ``mtcnn`` (`MtcnnDetector`).

    Raises:
        ValueError: another name.
        DataError: what it needs is not installed.
    """
    if name not in DETECTORS:
        raise ValueError(f"detector must be {' or '.join(DETECTORS)}, got {name!r}")
    return LbpDetector() if name == "lbp" else MtcnnDetector()


class LbpDetector:
    """Frontal faces by a cascade of local binary patterns (Liao et al. 2007), from scikit-image.

    Its box goes from the brows to below the mouth. Windows that overlap are gathered about the one
    most of them agree with; the score is how many do.
    """

    def __init__(self, *, side: int = 480, min_share: float = 1 / 12, min_windows: int = 5) -> None:
        """Load the cascade.

        Args:
            side: images are brought to this longer side, in pixels, before the search.
            min_share: least side of a face's box as share of the image's longer side.
            min_windows: so many windows must agree.

        Raises:
            DataError: scikit-image is not installed.
        """
        try:
            from skimage.data import lbp_frontal_face_cascade_filename
            from skimage.feature import Cascade
        except ImportError:
            raise missing_library("finding faces", "scikit-image", "papercommons[faces]") from None
        self._cascade: Any = Cascade(lbp_frontal_face_cascade_filename())
        self.side, self.min_share, self.min_windows = side, min_share, min_windows

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Return the faces, largest first.

        Args:
            image: uint8, shape (H, W, 3) in RGB or (H, W).

        Raises:
            ValueError: not as described.
        """
        from PIL import Image

        picture = Image.fromarray(check_image(image)).convert("L")
        scale = self.side / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        if min(size) < 24:  # the cascade's window
            return []
        found = self._cascade.detect_multi_scale(
            np.asarray(picture.resize(size, Image.Resampling.BILINEAR)),
            scale_factor=1.1,
            step_ratio=1.25,
            min_size=(max(24, round(self.side * self.min_share)),) * 2,
            max_size=size,
            min_neighbor_number=1,
            intersection_score_threshold=2,  # above 1: windows are not merged there but here
        )
        windows = [(w["c"], w["r"], w["c"] + w["width"], w["r"] + w["height"]) for w in found]
        boxes = np.array(windows, np.float64).reshape(-1, 4) / scale
        return largest_first(gather(boxes, self.min_windows))


class MtcnnDetector:
    """Faces by MTCNN (Zhang et al. 2016), where facenet_pytorch is installed.

    Its box goes from the forehead to the chin; the score is a probability.
    """

    def __init__(self, *, device: str = "cpu", min_score: float = 0.8) -> None:
        """Check that it is there.

        Args:
            device: torch device to compute on.
            min_score: faces below are left out.

        Raises:
            DataError: facenet_pytorch is not installed.
        """
        try:
            import facenet_pytorch  # noqa: F401
        except ImportError:
            raise DataError(
                "the detector mtcnn needs facenet_pytorch, which is not installed; run: pip "
                "install --no-deps facenet-pytorch, or use the detector lbp"
            ) from None
        self.device, self.min_score = device, min_score

    @cached_property
    def _network(self) -> Any:
        from facenet_pytorch import MTCNN

        return MTCNN(keep_all=True, post_process=False, device=self.device)

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Return the faces, largest first; see `LbpDetector.__call__`."""
        image = check_image(image)
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        boxes, scores = self._network.detect(image)
        if boxes is None:
            return []
        faces = [
            Face(np.asarray(box, np.float64), float(score))
            for box, score in zip(boxes, scores, strict=True)
        ]
        return largest_first([face for face in faces if face.score >= self.min_score])


def largest_first(faces: list[Face]) -> list[Face]:
    """Return the faces by area, the largest first.

    Args:
        faces: any number.
    """
    return sorted(faces, key=lambda face: -face.area)


def gather(boxes: np.ndarray, least: int) -> list[Face]:
    """Return one face for each group of overlapping windows, the largest group first.

    A face is the mean of the windows that overlap with the window most others overlap with
    (intersection over union above 0.5); windows that overlap with a face (above 0.2) are spent.

    Args:
        boxes: windows, float64, shape (N, 4).
        least: windows of a group, below which it is not a face.
    """
    faces: list[Face] = []
    while len(boxes):
        near = overlap(boxes, boxes) > 0.5
        counts = near.sum(1)
        best = counts.argmax()
        if counts[best] < least:
            break
        mean = boxes[near[best]].mean(0)
        faces.append(Face(mean, float(counts[best])))
        boxes = boxes[overlap(boxes, mean[None])[:, 0] <= 0.2]
    return faces


def check_image(image: np.ndarray) -> np.ndarray:
    """Return the image if it is uint8 of shape (H, W, 3) or (H, W), and not empty.

    Raises:
        ValueError: it is not.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"image must be uint8 (H, W, 3) or (H, W), got {image.dtype} {image.shape}"
        )
    if not image.size:
        raise ValueError(f"image must not be empty, got {image.shape}")
    return image
