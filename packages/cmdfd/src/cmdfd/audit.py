"""What the lengths of picture and sound alone give away (section 4.4 a).

In the official lists one number tells real from fake nearly as well as the published detectors: by
how much the sound is longer than the picture. A detector's result on a list means nothing without
the result of that number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from papercommons.metrics.bootstrap import with_intervals
from papercommons.metrics.roc import unchecked_auc, weighted_auc
from torch import Tensor

from cmdfd.entries import ClipEntry

ALL = "all"
FACTS: dict[str, Callable[[ClipEntry], float | None]] = {
    "offset": lambda entry: entry.offset,
    "picture_seconds": lambda entry: entry.video_seconds,
    "sound_seconds": lambda entry: entry.audio_seconds,
    "frames_per_second": lambda entry: entry.fps,
    "sample_rate": lambda entry: entry.sample_rate,
}
FEW, CLEAR = 20, 0.75  # with fewer people intervals are too narrow: only a clear AUC is a leak
_DIGITS = 6  # of seconds; below, numbers differ by rounding alone


class Separation(NamedTuple):
    """How well the offset tells the fakes of a method from all real clips.

    Attributes:
        method: of the fakes; ``all`` is every fake.
        fakes: how many of them state their lengths.
        reals: likewise.
        auc: P(offset of a fake > of a real clip) + P(equal) / 2; NaN without both classes.
        found: the same with the better sign, in [0.5, 1]: what a detector could get.
        low: end of the interval of `auc`.
        high: the other end.
        ties: share of pairs of a fake and a real clip with the same offset.
        median_real: of the offset in seconds.
        median_fake: likewise.
        people: independent sources that were resampled.
    """

    method: str
    fakes: int
    reals: int
    auc: float
    found: float
    low: float
    high: float
    ties: float
    median_real: float
    median_fake: float
    people: int

    @property
    def verdict(self) -> str:
        """What that means: is the sound of fakes longer, or shorter, than that of real clips?"""
        if not self.fakes or not self.reals:
            return "one class"
        if self.ties == 1:
            return "constant"
        if self.low <= 0.5 <= self.high:
            return "none seen"
        if self.people < FEW and self.found < CLEAR:
            return f"unclear: {self.people} people"
        return f"leak: {'longer' if self.auc > 0.5 else 'shorter'} sound"


@dataclass(frozen=True, eq=False)
class Audit:
    """What lists say beside their labels.

    Attributes:
        separations: first all fakes, then each method.
        facts: fact -> AUC of it over all clips that state it; NaN where that is not defined.
        clips: how many there are.
        unknown: how many of them do not state their lengths.
        balance: one row per split, method and label with the number of clips.
    """

    separations: list[Separation]
    facts: dict[str, float]
    clips: int
    unknown: int
    balance: list[dict[str, object]]

    @property
    def overall(self) -> Separation:
        """All fakes against all real clips."""
        return self.separations[0]


def audit_entries(
    entries: Iterable[ClipEntry],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Audit:
    """Return how well lengths alone tell real from fake.

    Intervals are percentiles over resampled people: all clips of a face are drawn together.

    Args:
        entries: at least one; see `cmdfd.headers.with_headers` for the lengths of the files.
        draws: resamples, >= 1.
        seed: of the resampling.

    Raises:
        ValueError: no entries, or draws < 1.
    """
    clips = list(entries)
    if not clips or draws < 1:
        raise ValueError(f"needs entries and draws >= 1, got {len(clips)} and {draws}")
    known = [entry for entry in clips if entry.offset is not None]
    reals = [entry for entry in known if not entry.entire]
    methods = sorted({entry.method for entry in clips if entry.entire})
    separations = []
    for method in [ALL, *(methods if len(methods) > 1 else [])]:
        fakes = [entry for entry in known if entry.entire and method in (ALL, entry.method)]
        separations.append(_separation(method, fakes, reals, draws, seed))
    return Audit(
        separations,
        {name: _fact_auc(clips, fact) for name, fact in FACTS.items()},
        len(clips),
        len(clips) - len(known),
        _balance(clips),
    )


def _separation(
    method: str,
    fakes: Sequence[ClipEntry],
    reals: Sequence[ClipEntry],
    draws: int,
    seed: int,
) -> Separation:
    clips = [*fakes, *reals]
    scores = _offsets(clips)
    positive = torch.arange(len(clips)) < len(fakes)
    groups = [(entry.identities or (entry.name,))[0] for entry in clips]
    auc = unchecked_auc(scores.numpy(), positive.numpy())
    low = high = torch.nan
    if fakes and reals:
        drawn = with_intervals(
            lambda weights: {"auc": weighted_auc(scores, positive, weights)},
            groups,
            draws=draws,
            seed=seed,
        )
        _, low, high = drawn["auc"]
    return Separation(
        method,
        len(fakes),
        len(reals),
        auc,
        max(auc, 1 - auc),
        low,
        high,
        _ties(scores[positive], scores[~positive]),
        _median(scores[~positive]),
        _median(scores[positive]),
        len(set(groups)),
    )


def _offsets(clips: Sequence[ClipEntry]) -> Tensor:
    values = torch.tensor([entry.offset or 0.0 for entry in clips], dtype=torch.double)
    return values.round(decimals=_DIGITS)


def _ties(fake: Tensor, real: Tensor) -> float:
    if not len(fake) or not len(real):
        return float("nan")
    values, counts = real.unique(return_counts=True)
    place = torch.searchsorted(values, fake).clamp(max=len(values) - 1)
    same = torch.where(values[place] == fake, counts[place], 0)
    return float(same.sum()) / (len(fake) * len(real))


def _median(values: Tensor) -> float:
    return float(values.quantile(0.5)) if len(values) else float("nan")


def _fact_auc(clips: Sequence[ClipEntry], fact: Callable[[ClipEntry], float | None]) -> float:
    stated = [(value, clip.entire) for clip in clips if (value := fact(clip)) is not None]
    scores = torch.tensor([value for value, _ in stated], dtype=torch.double)
    positive = torch.tensor([bool(entire) for _, entire in stated], dtype=torch.bool)
    return unchecked_auc(scores.round(decimals=_DIGITS).numpy(), positive.numpy())


def _balance(clips: Sequence[ClipEntry]) -> list[dict[str, object]]:
    counts = Counter((clip.split or "–", clip.method, clip.entire) for clip in clips)
    return [
        {"split": split, "method": method, "label": "fake" if entire else "real", "clips": count}
        for (split, method, entire), count in sorted(
            counts.items(), key=lambda item: (item[0][0], item[0][2], item[0][1])
        )
    ]
