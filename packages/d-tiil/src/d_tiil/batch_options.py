"""Options of the commands that go through a data set; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from papercommons.checks import check_at_least
from papercommons.errors import DataError, nearest

from d_tiil.options import HelperOptions

if TYPE_CHECKING:
    from d_tiil.records import PairSet, Record
    from d_tiil.scene_pairs import ScenePairOptions

Method = Literal["d-tiil", "empty", "attention", "clip"]
Feature = Literal["gap", "relative_gap", "clip_region", "clip_edit", "clip_pair"]


@dataclass(frozen=True)
class DataOptions:
    """What is taken of a data set.

    Attributes:
        layout: auto, jsonl, tiil, dgm4 or newsclippings.
        visual_news: of NewsCLIPpings: file data.json of Visual News.
        mask_key: of TIIL: key of the masks in its lists; looked for if not given.
        word_key: of TIIL: key of the inconsistent words.
        split: only this one: train, val or test; or all, also what is in no split.
        kinds: only these kinds of inconsistency, and the consistent pairs.
        limit: only the first pairs.
        check: paths: images must be there; headers: and have sizes that fit their masks; full: all
            are decoded before anything begins.
        strict: refuse a set with any defect, and stop at a pair that cannot be used; else they are
            named, counted and left out.
    """

    layout: str = "auto"
    visual_news: str | None = None
    mask_key: str | None = None
    word_key: str | None = None
    split: Literal["train", "val", "test", "all"] = "all"
    kinds: list[str] | None = None
    limit: int | None = None
    check: Literal["paths", "headers", "full"] = "headers"
    strict: bool = False

    def __post_init__(self) -> None:
        check_at_least(1, limit=self.limit)

    def open(self, data: str) -> PairSet:
        """Return the data set.

        Raises:
            DataError: see `d_tiil.layouts.open_pairs`.
        """
        from d_tiil.layouts import open_pairs

        return open_pairs(
            data,
            layout=self.layout,  # type: ignore[arg-type]  # checked there
            visual_news=self.visual_news,
            mask_key=self.mask_key,
            word_key=self.word_key,
            check=self.check,
            strict=self.strict,
        )

    def choose(self, pairs: PairSet, split: str | None = None) -> tuple[Record, ...]:
        """Return the records that are meant.

        Args:
            pairs: the data set.
            split: in place of the options' own.

        Raises:
            DataError: no such split or kind, or no record is left.
        """
        wanted = split or self.split
        records: Sequence[Record] = pairs.records if wanted == "all" else pairs.of_split(wanted)
        known = sorted({record.kind for record in records if record.kind})
        for kind in self.kinds or ():
            if kind not in known:
                has = ", ".join(known) or "no kinds"
                raise DataError(
                    f"--kinds: {pairs.path} has {has}, not {kind!r}{nearest(kind, known)}"
                )
        if self.kinds:
            records = [r for r in records if r.kind in self.kinds or r.label == "consistent"]
        return tuple(records[: self.limit])


@dataclass(frozen=True)
class PairSetOptions:
    """What is made.

    Attributes:
        count: changes of each kind in the split test; each gives a pair of each part.
        calibration: changes of each kind in the split val.
        kinds: color, shape, texture (crowded scenes), background, relation (simple scenes), whole;
            all that the scenes allow if not given.
        parts: consistent, caption (the caption was changed), image (the picture was), control (the
            picture was redrawn with slight noise, and is consistent); all if not given.
        scenes: simple (two things) or crowded (three or four, with textures).
        held_out: all captions have a colour and a shape together that training keeps apart; needs
            crowded scenes.
        size: side of the pictures in pixels.
        noise: of controls, standard deviation in 255ths.
    """

    count: int = 100
    calibration: int = 25
    kinds: list[str] | None = None
    parts: list[str] | None = None
    scenes: Literal["simple", "crowded"] = "simple"
    held_out: bool = False
    size: int = 32
    noise: float = 8.0

    def make(self) -> ScenePairOptions:
        """Return them as the benchmark takes them.

        Raises:
            ValueError: a number out of range, or words that do not go together.
        """
        from d_tiil.scene_pairs import ScenePairOptions

        given: dict[str, Any] = {k: v for k, v in asdict(self).items() if v is not None}
        for name in ("kinds", "parts"):
            if name in given:
                given[name] = tuple(given[name])
        try:
            return ScenePairOptions(**given)
        except ValueError as error:
            name, _, rule = str(error).partition(" ")
            raise ValueError(f"--{name.replace('_', '-')} {rule}") from None


def check_method(method: Method, model: str | None, helpers: HelperOptions) -> None:
    """Raise ValueError unless a method has the model that it needs.

    Args:
        method: as given.
        model: the text-to-image model, or None.
        helpers: models beside it.
    """
    if method == "clip" and helpers.clip_model is None:
        raise ValueError("--method clip needs --clip-model")
    if method != "clip" and model is None:
        raise ValueError(f"--method {method} needs --model; only clip does without")
