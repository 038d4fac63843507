"""Settings of the method, without torch; a model folder may keep its own in d_tiil.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from papercommons.errors import DataError, nearest, reason
from papercommons.files import write_json

SETTINGS_FILE = "d_tiil.json"

MapKind = Literal["single", "trajectory"]
Norm = Literal["euclidean", "mean"]
Latent = Literal["input", "edited"]
Scorer = Literal["denoise", "clip", "attention"]
Unit = Literal["word", "phrase"]


def _at_least(settings: Any, **least: float) -> None:
    for name, low in least.items():
        if not getattr(settings, name) >= low:
            raise ValueError(f"{name} must be >= {low}, got {getattr(settings, name)}")


def _positive(settings: Any, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be > 0, got {getattr(settings, name)}")


def _guidance(settings: Any) -> None:
    if not (math.isfinite(settings.guidance) and settings.guidance >= 0):
        raise ValueError(f"guidance must be a number >= 0, got {settings.guidance}")


def _share(settings: Any, name: str) -> None:
    if not 0 < getattr(settings, name) < 1:
        raise ValueError(f"{name} must be in (0, 1), got {getattr(settings, name)}")


def _one_of(settings: Any, **kinds: Any) -> None:
    for name, kind in kinds.items():
        if getattr(settings, name) not in get_args(kind):
            known = ", ".join(get_args(kind))
            raise ValueError(f"{name} must be one of {known}, got {getattr(settings, name)!r}")


@dataclass(frozen=True)
class AlignmentSettings:
    """How an embedding is aligned to an image.

    Attributes:
        steps: of Adam, at most; the reference takes 200 or 500.
        lr: its learning rate, > 0; 1e-3 for Stable Diffusion.
        batch: pairs of timestep and noise per step; the reference takes 1.
        check_every: steps between two checks on fixed pairs.
        patience: checks without gain after which it ends; 0: no checks, all steps are done and the
            last embedding is taken, as in the reference.
        min_gain: relative decrease that counts as gain, in [0, 1).
        checked: number of the fixed pairs.
        finetune_steps: of fine-tuning a copy of the network on the same loss afterwards.
        finetune_lr: its learning rate, > 0.
    """

    steps: int = 200
    lr: float = 1e-3
    batch: int = 4
    check_every: int = 10
    patience: int = 3
    min_gain: float = 5e-3
    checked: int = 16
    finetune_steps: int = 0
    finetune_lr: float = 4e-6

    def __post_init__(self) -> None:
        least = {"steps": 0, "batch": 1, "check_every": 1, "patience": 0, "checked": 1}
        _at_least(self, **least, finetune_steps=0)
        _positive(self, "lr", "finetune_lr")
        if not 0 <= self.min_gain < 1:
            raise ValueError(f"min_gain must be in [0, 1), got {self.min_gain}")


@dataclass(frozen=True)
class MapSettings:
    """How two embeddings are compared.

    Attributes:
        kind: single: noise is predicted once, at `draws` levels from `low` to `high`; trajectory:
            at the end of `steps` x `strength` guided steps, as in the reference. The first is far
            cheaper.
        draws: number of noises; the mean of their maps counts.
        low: least noise level of single maps, as a share of all timesteps, in [0, 1].
        high: greatest one, in [low, 1]. DiffEdit: both 0.5.
        strength: share of the trajectory's steps that is run, in (0, 1].
        steps: of the whole trajectory.
        order: of its solver: 1 is DDIM, 4 the reference's linear multistep.
        guidance: of its noise predictions, >= 0; single maps need none, it would change their
            scale alone.
        norm: of the difference over channels: euclidean (the reference), or the mean of absolute
            values (DiffEdit).
        clamp: greatest value, as a multiple of the map's mean; 0: none. DiffEdit: 3.
        blur: sigma of the Gaussian over 5 x 5 latents before the threshold; 0: none.
    """

    kind: MapKind = "single"
    draws: int = 10
    low: float = 0.3
    high: float = 0.7
    strength: float = 0.5
    steps: int = 10
    order: int = 1
    guidance: float = 7.0
    norm: Norm = "euclidean"
    clamp: float = 0.0
    blur: float = 1.0

    def __post_init__(self) -> None:
        _one_of(self, kind=MapKind, norm=Norm)
        _at_least(self, draws=1, steps=1, order=1, clamp=0, blur=0)
        _guidance(self)
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"0 <= low <= high <= 1 must hold, got {self.low} and {self.high}")
        if not 0 < self.strength <= 1 or self.order > 4:
            raise ValueError(
                f"strength must be in (0, 1] and order 1 to 4, got {self.strength} and {self.order}"
            )


@dataclass(frozen=True)
class EditSettings:
    """How the image is edited towards its caption.

    Attributes:
        steps: of DDIM; the reference takes 200.
        guidance: classifier-free, >= 0.
        threshold: of the mask to edit, in (0, 1); the reference takes 0.15.
    """

    steps: int = 50
    guidance: float = 7.5
    threshold: float = 0.15

    def __post_init__(self) -> None:
        _at_least(self, steps=1)
        _guidance(self)
        _share(self, "threshold")


@dataclass(frozen=True)
class LocateSettings:
    """How an inconsistency is located and judged.

    Attributes:
        alignment: of embeddings.
        maps: between embeddings.
        edit: of the image.
        threshold: of the final mask, in (0, 1); the reference takes 0.3.
        latent: whose latents the final map is made on; the reference takes the edited image's.
        scorer: of words: denoise (what the error loses if a word becomes neutral), clip (likeness
            to the edited region; needs a CLIP model), attention (overlap with the region).
        unit: what is scored, single words or phrases; the reference's phrases suit clip.
        neutral: what takes a word's place for `denoise`.
        pairs: of timestep and noise, that denoising errors are measured on.
        max_rows: images given to the network at once; less needs less memory.
    """

    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    maps: MapSettings = field(default_factory=MapSettings)
    edit: EditSettings = field(default_factory=EditSettings)
    threshold: float = 0.3
    latent: Latent = "input"
    scorer: Scorer = "denoise"
    unit: Unit = "word"
    neutral: str = "a"
    pairs: int = 32
    max_rows: int = 8

    def __post_init__(self) -> None:
        _one_of(self, latent=Latent, scorer=Scorer, unit=Unit)
        _at_least(self, pairs=2, max_rows=1)
        _share(self, "threshold")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return settings of plain values, those of parts in dictionaries of their own.

        Raises:
            ValueError: an unknown name, or a value that cannot be.
        """
        parts = {name: part for name, part in PARTS.items() if name in values}
        made = {name: _make(part, values[name], name) for name, part in parts.items()}
        return _make(cls, {**values, **made}, "settings")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


PARTS: dict[str, type] = {
    "alignment": AlignmentSettings,
    "maps": MapSettings,
    "edit": EditSettings,
}

REFERENCE = LocateSettings(
    alignment=AlignmentSettings(steps=500, batch=1, patience=0),
    maps=MapSettings(kind="trajectory", order=4),
    edit=EditSettings(steps=200),
    latent="edited",
    scorer="clip",
    unit="phrase",
)
"""What the official code does by default."""

TINY = LocateSettings(
    alignment=AlignmentSettings(steps=40, lr=2e-2, batch=2, check_every=20),
    maps=MapSettings(blur=0.0),
    edit=EditSettings(steps=25, guidance=3.0),
    max_rows=128,
)
"""For the tiny model of scenes."""


def read_settings(folder: str | Path) -> LocateSettings:
    """Return the settings that a model folder keeps, or the defaults.

    Raises:
        DataError: the file cannot be read, or holds what cannot be.
    """
    path = Path(folder) / SETTINGS_FILE
    return read_settings_file(path) if path.is_file() else LocateSettings()


def read_settings_file(path: str | Path) -> LocateSettings:
    """Return the settings of a JSON file in the form of d_tiil.json.

    Raises:
        DataError: it cannot be read, or holds what cannot be.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
        return LocateSettings.from_dict(values)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not readable settings ({reason(error)})") from None


def write_settings(folder: str | Path, settings: LocateSettings) -> None:
    """Keep settings in a model folder."""
    write_json(Path(folder) / SETTINGS_FILE, settings.to_dict())


def _make(kind: type, values: Any, name: str) -> Any:
    if is_dataclass(values):
        return values
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} must be an object, got {values!r}")
    known: dict[str, Any] = {entry.name: entry for entry in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{name}: unknown {key}{nearest(key, known)}")
        numbers: Any = {"int": int, "float": (int, float), "str": str}.get(known[key].type)
        if numbers and (not isinstance(value, numbers) or isinstance(value, bool)):
            raise ValueError(f"{name}: {key} must be {known[key].type}, got {value!r}")
    return kind(**values)
