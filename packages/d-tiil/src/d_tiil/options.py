"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from papercommons.errors import DataError

from d_tiil.loading import HUB_ID, check_model
from d_tiil.phrases import Phrase, content_words
from d_tiil.settings import (
    REFERENCE,
    Latent,
    LocateSettings,
    MapKind,
    Scorer,
    Unit,
    read_settings,
    read_settings_file,
)
from d_tiil.tokens import check_text
from d_tiil.word_spans import find_word

if TYPE_CHECKING:
    from d_tiil.calibration import Calibration

PACKAGE = "d-tiil"
CALIBRATION_FILE = "calibration.json"
Depth = Literal["full", "first", "score"]

_PLACES = {  # flag -> part of the settings and field
    "align_steps": ("alignment", "steps"),
    "align_lr": ("alignment", "lr"),
    "align_batch": ("alignment", "batch"),
    "finetune_steps": ("alignment", "finetune_steps"),
    "map": ("maps", "kind"),
    "maps": ("maps", "draws"),
    "strength": ("maps", "strength"),
    "guidance": ("maps", "guidance"),
    "blur": ("maps", "blur"),
    "edit_steps": ("edit", "steps"),
    "edit_guidance": ("edit", "guidance"),
    "edit_threshold": ("edit", "threshold"),
    "threshold": ("", "threshold"),
    "mask_latent": ("", "latent"),
    "word_scorer": ("", "scorer"),
    "word_unit": ("", "unit"),
    "pairs": ("", "pairs"),
    "max_rows": ("", "max_rows"),
}


@dataclass(frozen=True)
class ModelOptions:
    """Where the model runs.

    Attributes:
        accelerator: auto, cpu or gpu.
        dtype: number format of the weights; auto is bfloat16 on a GPU that has it, else float32.
        variant: which of several sets of files of the model, for example fp16.
        resize: scale images to the model's size; masks have the images' own. Without it an image
            whose sides do not fit is refused.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    variant: str | None = None
    resize: bool = True

    def __post_init__(self) -> None:
        if self.accelerator == "cpu" and self.dtype == "float16":
            raise ValueError("--dtype float16 needs a GPU; take float32 on the CPU")


@dataclass(frozen=True)
class HelperOptions:
    """Models and files beside the text-to-image model.

    Attributes:
        inpaint_model: folder or hub id of an inpainting model (9 channels) for the edit; latents of
            the text-to-image model are blended if not given.
        clip_model: folder or hub id of a CLIP model, of transformers or open_clip.
        calibration: what d-tiil-calibrate wrote, its --out folder or the file: scores become
            consistencies and pairs are judged.
    """

    inpaint_model: str | None = None
    clip_model: str | None = None
    calibration: str | None = None

    def check(self) -> Calibration | None:
        """Return the calibration, if one is given; needs no torch.

        Raises:
            DataError: what is given is not there or cannot be used.
        """
        if self.inpaint_model is not None:
            check_model(self.inpaint_model)
        if self.clip_model is not None:
            _check_clip(self.clip_model)
        if self.calibration is None:
            return None
        from d_tiil.calibration import Calibration

        found = Calibration.load(self.calibration_path)
        if found.feature.startswith("clip_") and self.clip_model is None:
            raise DataError(
                f"{self.calibration}: calibrates {found.feature}; give --clip-model, the same one"
            )
        return found

    def paths(self) -> tuple[str | None, ...]:
        """Return what is given."""
        return self.inpaint_model, self.clip_model, self.calibration

    @property
    def calibration_path(self) -> Path:
        """File of the calibration."""
        path = Path(str(self.calibration))
        return path / CALIBRATION_FILE if path.is_dir() else path


def _check_clip(source: str) -> None:
    folder = Path(source)
    if folder.is_dir():
        known = ("config.json", "open_clip_config.json")
        if not any((folder / name).is_file() for name in known):
            raise DataError(f"{source}: no CLIP model ({' or '.join(known)})")
    elif folder.exists() or folder.is_absolute() or not HUB_ID.fullmatch(source):
        raise DataError(f"{source}: no such folder, and not a hub id (owner/name)")


@dataclass(frozen=True)
class LocateOptions:
    """How inconsistencies are found; what is not given is as the model's folder or the preset says.

    Attributes:
        preset: model: what the model's folder keeps in d_tiil.json, else defaults for Stable
            Diffusion; reference: what the published code does, many times slower.
        settings: JSON file in the form of d_tiil.json instead, for what has no option here.
        align_steps: of the alignment of the embedding, at most.
        align_lr: its learning rate.
        align_batch: pairs of timestep and noise in a step.
        finetune_steps: of fine-tuning a copy of the network afterwards.
        map: noise predicted once at several levels (single), or at the end of guided trajectories,
            as published.
        maps: number of noises whose maps are averaged.
        strength: share of a trajectory that is run.
        guidance: of a trajectory's predictions.
        blur: sigma of the blur of maps, in latents; 0: none.
        edit_steps: of the edit towards the caption.
        edit_guidance: likewise.
        edit_threshold: of the mask that is edited.
        threshold: of the final mask; wins over a calibration's.
        mask_latent: whose latents the final map is made on; edited is as published.
        word_scorer: denoise: what the error loses without the word; clip: likeness to the edited
            region; attention: overlap with the region.
        word_unit: what is scored, words or phrases.
        pairs: of timestep and noise that errors are measured on.
        max_rows: images given to the network at once; less needs less memory.
    """

    preset: Literal["model", "reference"] = "model"
    settings: str | None = None
    align_steps: int | None = None
    align_lr: float | None = None
    align_batch: int | None = None
    finetune_steps: int | None = None
    map: MapKind | None = None
    maps: int | None = None
    strength: float | None = None
    guidance: float | None = None
    blur: float | None = None
    edit_steps: int | None = None
    edit_guidance: float | None = None
    edit_threshold: float | None = None
    threshold: float | None = None
    mask_latent: Latent | None = None
    word_scorer: Scorer | None = None
    word_unit: Unit | None = None
    pairs: int | None = None
    max_rows: int | None = None

    def __post_init__(self) -> None:
        if self.settings is not None and self.preset != "model":
            raise ValueError("--settings and --preset exclude each other; give one")
        for flag in _PLACES:
            self._apply(LocateSettings(), flag)

    def resolve(self, model: str) -> LocateSettings:
        """Return the settings for a model; needs no torch.

        Args:
            model: folder, or a hub id.

        Raises:
            DataError: a file of settings cannot be used.
        """
        if self.settings is not None:
            found = read_settings_file(self.settings)
        else:
            found = REFERENCE if self.preset == "reference" else read_settings(model)
        for flag in _PLACES:
            found = self._apply(found, flag)
        return found

    def _apply(self, settings: LocateSettings, flag: str) -> LocateSettings:
        value = getattr(self, flag)
        if value is None:
            return settings
        part, field = _PLACES[flag]
        try:
            if not part:
                return replace(settings, **{field: value})
            changed: Any = replace(getattr(settings, part), **{field: value})
            return replace(settings, **{part: changed})
        except ValueError as error:
            raise ValueError(f"--{flag.replace('_', '-')}: {error}") from None


def check_scorer(settings: LocateSettings, clip_model: str | None, depth: Depth) -> None:
    """Raise ValueError unless the scorer of words has what it needs.

    Args:
        settings: of the method.
        clip_model: that is given, or None.
        depth: how far the method goes.
    """
    if settings.scorer != "clip" or depth == "score":
        return
    if clip_model is None:
        raise ValueError("--word-scorer clip needs --clip-model; or take denoise or attention")
    if depth == "first":
        raise ValueError("--word-scorer clip needs the edited image; take denoise or attention")


def check_image(image: str) -> None:
    """Raise DataError unless `image` is a picture that can be read."""
    from papercommons.data.images import read_image

    if not Path(image).is_file():
        raise DataError(f"{image}: no such file; --image takes a picture")
    try:
        read_image(image)
    except DataError as error:  # its advice is for data sets
        why, _, _ = str(error).rpartition("; ")
        raise DataError(f"{why or error}; --image takes another picture") from None


def check_caption(caption: str, *, words: bool) -> None:
    """Raise DataError unless a caption can be judged.

    Args:
        caption: what the image is said to show.
        words: some of it must be words that an image can contradict.
    """
    check_text(caption, "--caption")
    if words and not content_words(caption):
        raise DataError(f"--caption {caption!r} has no word that an image can contradict")


def given_phrases(caption: str, words: list[str]) -> list[Phrase]:
    """Return words of a caption with all their places, in its order, in any case of letters.

    Args:
        caption: what the image is said to show.
        words: words or phrases of it.

    Raises:
        DataError: there is none, or one does not stand in the caption as whole words.
    """
    if not words:
        raise DataError("--words is empty; give words of the caption, or leave it out")
    found: set[Phrase] = set()
    for word in words:
        places = find_word(caption, word)
        if not places:
            raise DataError(f"--words: {word!r} does not stand in the caption {caption!r}")
        found.update(places)
    return sorted(found, key=lambda phrase: (phrase.start, phrase.end))
