"""How well a map of probabilities finds altered pixels, one image at a time, by three protocols.

``official``: the rule of DeFI-Net's published evaluation. The map is stretched to [0, 1] and a
    pixel called altered at or above the threshold: F1, F1 as the mean over both kinds of pixel,
    IoU, AUC. A stretched map accuses some pixel of every image that is not constant.
``imdl``: that of IMDL-BenCo. Altered above the threshold: precision, recall, F1, IoU, accuracy,
    AUC.
``trufor``: that of TruFor. Only pixels away from the edge of the truth count: those that an
    erosion by 15 x 15 leaves, and those that a dilation by 11 x 11 does not reach. F1 at the best
    threshold and at the fixed one, each the better of the map and its complement: it flatters.

The published rules add 1e-8 or 1e-6 to denominators; here they do not, which changes nothing above
1e-6. An image without altered pixels gets the share of its pixels that are accused, and no other
measure: F1 there says nothing. What is undefined, as AUC where every pixel is altered, is NaN.
Tensors are taken as well as arrays; `batch_metrics` keeps them where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from papercommons.metrics.roc import (
    NAN,
    as_array,
    as_binary,
    batch_auc,
    score_levels,
    unchecked_auc,
)

if TYPE_CHECKING:
    from torch import Tensor

Protocol = Literal["official", "imdl", "trufor"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

__all__ = [
    "PROTOCOLS",
    "Confusion",
    "Protocol",
    "batch_metrics",
    "boundary_f1",
    "confusion",
    "dilate",
    "pixel_metrics",
    "trufor_regions",
]


class Confusion(NamedTuple):
    """Numbers of pixels, by what they are and what they are called.

    Each is one number, or an array with one entry per threshold.

    Attributes:
        tp: altered, called altered.
        fp: authentic, called altered.
        fn: altered, called authentic.
        tn: authentic, called authentic.
    """

    tp: Any
    fp: Any
    fn: Any
    tn: Any

    def complement(self) -> Confusion:
        """Return the numbers where every pixel is called the opposite."""
        return Confusion(tp=self.fn, fp=self.tn, fn=self.tp, tn=self.fp)

    def precision(self) -> Any:
        """Return TP / (TP + FP); 0 where nothing is called altered."""
        return _ratio(self.tp, self.tp + self.fp)

    def recall(self) -> Any:
        """Return TP / (TP + FN); 0 where nothing is altered."""
        return _ratio(self.tp, self.tp + self.fn)

    def f1(self) -> Any:
        """Return 2 TP / (2 TP + FP + FN); 0 where nothing is altered or called so."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def f1_macro(self) -> Any:
        """Return the mean of the F1 of altered and of authentic pixels.

        A kind that neither occurs nor is called so does not enter.
        """
        authentic = Confusion(tp=self.tn, fp=self.fn, fn=self.fp, tn=self.tp)
        kinds = (self, authentic)
        there = [kind.tp + kind.fp + kind.fn > 0 for kind in kinds]
        total = sum(kind.f1() for kind in kinds)
        return _ratio(total, there[0] + 1 * there[1])

    def iou(self) -> Any:
        """Return TP / (TP + FP + FN); 0 where nothing is altered or called so."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    def accuracy(self) -> Any:
        """Return (TP + TN) / all."""
        return _ratio(self.tp + self.tn, sum(self))

    def false_positive_rate(self) -> Any:
        """Return FP / (FP + TN); 0 where nothing is authentic."""
        return _ratio(self.fp, self.fp + self.tn)


def _ratio(part: Any, whole: Any) -> Any:
    return part / np.maximum(whole, 1)  # a whole of 0 has parts of 0


def pixel_metrics(
    probability: Any,
    mask: Any,
    *,
    protocol: Protocol = "imdl",
    threshold: float = 0.5,
    stretch: bool | None = None,
    valid: Any = None,
) -> dict[str, float]:
    """Return the measures of one image by one protocol (see the module).

    Args:
        probability: of being altered, shape (H, W): float in [0, 1], or uint8, read as 255ths.
        mask: 1 = altered, 0 = authentic, bool or any real dtype, shape (H, W).
        protocol: official, imdl or trufor.
        threshold: on the probability, in (0, 1). All protocols: 0.5.
        stretch: to [0, 1] before the threshold; None is as the protocol says.
        valid: pixels that count, 0 and 1, shape (H, W); None is all.

    Returns:
        official: ``f1, f1_macro, iou, auc``; imdl: ``precision, recall, f1, iou, accuracy, auc``;
        trufor: ``f1_best, f1_fixed``; all in [0, 1], NaN where undefined. Of an image without
        altered pixels only ``false_positive_rate``.

    Raises:
        ValueError: a shape, dtype or range is not as above, or no pixel counts.

    Example:
        >>> found = pixel_metrics([[0.9, 0.6], [0.2, 0.1]], [[1, 0], [0, 0]])
        >>> round(found["f1"], 3), found["auc"]
        (0.667, 1.0)
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    scores, truth, counted = _checked(probability, mask, threshold, valid)
    official = protocol == "official"
    rule = _Rule(threshold, inclusive=official, stretch=official if stretch is None else stretch)
    if protocol == "trufor":
        altered, authentic = trufor_regions(truth)
        sure = altered | authentic if counted is None else (altered | authentic) & counted
        if _only(counted, truth).any():
            return _trufor(scores[sure], truth[sure], rule)
    scores, truth = _only(counted, scores), _only(counted, truth)
    if not truth.any():
        found = _confusion(scores, truth, rule)
        return {"false_positive_rate": float(found.false_positive_rate())}
    found = _confusion(scores, truth, rule)
    names = "f1 f1_macro iou" if official else "precision recall f1 iou accuracy"
    values = {name: float(getattr(found, name)()) for name in names.split()}
    return values | {"auc": unchecked_auc(scores, truth)}


def _only(counted: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    return values if counted is None else values[counted]


def confusion(
    probability: Any,
    mask: Any,
    *,
    threshold: float = 0.5,
    inclusive: bool = False,
    stretch: bool = False,
    valid: Any = None,
) -> Confusion:
    """Return the numbers of pixels by what they are and what they are called.

    Args:
        probability: see `pixel_metrics`.
        mask: likewise.
        threshold: likewise.
        inclusive: a pixel at the threshold is called altered.
        stretch: see `pixel_metrics`; a constant map becomes 0.
        valid: see `pixel_metrics`.

    Raises:
        ValueError: see `pixel_metrics`.
    """
    scores, truth, counted = _checked(probability, mask, threshold, valid)
    rule = _Rule(threshold, inclusive, stretch)
    return _confusion(_only(counted, scores), _only(counted, truth), rule)


class _Rule(NamedTuple):
    """Which probabilities are called altered."""

    threshold: float
    inclusive: bool
    stretch: bool

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        if self.stretch:
            low, high = probability.min(), probability.max()
            probability = (probability - low) / (high - low if high > low else 1)
        if self.inclusive:
            return probability >= self.threshold
        return probability > self.threshold


def _confusion(scores: np.ndarray, truth: np.ndarray, rule: _Rule) -> Confusion:
    if scores.dtype == np.uint8:
        values, positive, negative = score_levels(scores, truth)
        called = rule(values)
        tp, fp = int(positive[called].sum()), int(negative[called].sum())
    else:
        called = rule(scores)
        tp = int(np.count_nonzero(called & truth))
        fp = int(np.count_nonzero(called)) - tp
    altered = int(np.count_nonzero(truth))
    return Confusion(tp, fp, altered - tp, truth.size - altered - fp)


def _trufor(scores: np.ndarray, truth: np.ndarray, rule: _Rule) -> dict[str, float]:
    if truth.all() or not truth.any():
        return {"f1_best": NAN, "f1_fixed": NAN}
    _, positive, negative = score_levels(scores, truth)
    fn, tn = positive.cumsum(), negative.cumsum()  # called altered: above each level
    swept = Confusion(fn[-1] - fn, tn[-1] - tn, fn, tn)
    best = max(swept.f1().max(), swept.complement().f1().max())
    fixed = _confusion(scores, truth, rule)
    return {
        "f1_best": float(best),
        "f1_fixed": float(max(fixed.f1(), fixed.complement().f1())),
    }


def trufor_regions(mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the surely altered and the surely authentic pixels, by TruFor's protocol.

    Args:
        mask: 0 and 1, shape (H, W).

    Returns:
        The mask eroded by 15 x 15, and what lies outside of it dilated by 11 x 11: bool, (H, W).
    """
    truth = as_binary(mask, "mask")
    return ~dilate(~truth, 7), ~dilate(truth, 5)


def boundary_f1(probability: Any, mask: Any, *, width: int = 5, threshold: float = 0.5) -> float:
    """Return the F1 of the altered pixels in the band along the edge of the truth.

    Args:
        probability: see `pixel_metrics`; altered above the threshold.
        mask: likewise.
        width: of the band to either side, pixels, >= 1: a pixel is in it if the square of
            2 width + 1 around it holds both kinds.
        threshold: see `pixel_metrics`.

    Returns:
        a number in [0, 1]; NaN where the mask has no edge.

    Raises:
        ValueError: see `pixel_metrics`, or width < 1.
    """
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width}")
    scores, truth, _ = _checked(probability, mask, threshold, None)
    band = dilate(truth, width) & dilate(~truth, width)
    if not band.any():
        return NAN
    return float(_confusion(scores[band], truth[band], _Rule(threshold, False, False)).f1())


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return where the square of 2 radius + 1 around a pixel holds a pixel of the mask.

    Args:
        mask: bool, shape (H, W).
        radius: >= 0; beyond the image nothing is set.

    Returns:
        bool, shape (H, W).
    """
    for _ in range(2):  # along each axis, by shifts that double
        reach, mask = 0, mask.T.copy()
        while reach < radius:
            step = min(reach + 1, radius - reach)
            before = mask.copy()
            mask[step:] |= before[:-step]
            mask[:-step] |= before[step:]
            reach += step
    return mask


def batch_metrics(
    probability: Tensor, mask: Tensor, *, threshold: float = 0.5, levels: int = 1024
) -> dict[str, Tensor]:
    """Return F1, IoU and AUC of each image of a batch, on its device and without waiting for it.

    Args:
        probability: in [0, 1], float, shape (N, 1, H, W).
        mask: 0 and 1, of that shape.
        threshold: altered above it.
        levels: the probability is rounded to so many for the AUC, >= 2.

    Returns:
        ``f1, iou, auc``, float32, shape (N,); NaN for images without altered pixels, and for the
        AUC of images with no others.

    Raises:
        ValueError: shapes differ, or levels < 2.
    """
    if probability.shape != mask.shape or probability.ndim != 4:
        raise ValueError(
            "probability and mask must be (N, 1, H, W), "
            f"got {tuple(probability.shape)} and {tuple(mask.shape)}"
        )
    if levels < 2:
        raise ValueError(f"levels must be >= 2, got {levels}")
    import torch

    scores, truth = probability.detach().flatten(1).float(), mask.flatten(1) > 0.5
    altered, called = truth.sum(1), scores > threshold
    tp, either = (called & truth).sum(1), (called | truth).sum(1)
    values = {
        "f1": 2 * tp / (tp + either),
        "iou": tp / either,
        "auc": batch_auc(scores, truth, levels=levels),
    }
    return {name: torch.where(altered > 0, value, torch.nan) for name, value in values.items()}


def _checked(
    probability: Any, mask: Any, threshold: float, valid: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return probability, truth and the pixels that count (None: all), or refuse them."""
    scores, truth = as_array(probability), as_binary(mask, "mask")
    counted = None if valid is None else as_binary(valid, "valid")
    if scores.ndim != 2 or scores.shape != truth.shape or scores.size == 0:
        raise ValueError(
            f"probability and mask must be (H, W), got {scores.shape} and {truth.shape}"
        )
    if counted is not None and counted.shape != truth.shape:
        raise ValueError(f"valid must be {truth.shape} as the mask is, got {counted.shape}")
    if scores.dtype != np.uint8 and (
        scores.dtype.kind != "f" or not (scores.min() >= 0 and scores.max() <= 1)
    ):
        raise ValueError(
            "probability must be uint8, or float in [0, 1], got "
            f"{scores.dtype} from {scores.min()} to {scores.max()}"
        )
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be in (0, 1), got {threshold}")
    if counted is not None and not counted.any():
        raise ValueError("no pixel counts: valid is 0 everywhere")
    return scores, truth, counted
