"""What other editors do on the same network: LEDITS++, and plain image-to-image, by diffusers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from papercommons.errors import DataError

from multi_edits.edits import Edit

if TYPE_CHECKING:
    from PIL import Image

Masks = Literal["both", "attention", "noise"]

_NETWORKS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet")
LEDITS_SIDE = 32  # diffusers takes multiples of it
_LEAST_LATENTS = 8  # of a side: masks are made at a quarter of it and smoothed with a border


@dataclass(frozen=True)
class LeditsSettings:
    """How LEDITS++ edits (arXiv 2311.16711); the defaults are diffusers'.

    Attributes:
        guidance: of each edit, times the edit's strength, >= 0.
        threshold: quantile below which a place is left alone, in [0, 1): the share of the image
            that one edit leaves as it is.
        warmup: first steps that are not guided, >= 0.
        skip: share of the steps, the noisiest ones, that are left out, in [0, 1).
        masks: from cross-attention, from the predicted noise, or where both agree.
        drop_old: push away from the replaced phrase too, with one prompt more for each swap.
    """

    guidance: float = 5.0
    threshold: float = 0.9
    warmup: int = 0
    skip: float = 0.15
    masks: Masks = "both"
    drop_old: bool = False

    def __post_init__(self) -> None:
        _check_guidance(self.guidance)
        for name in ("threshold", "skip"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.warmup < 0:
            raise ValueError(f"warmup must be >= 0, got {self.warmup}")
        if self.masks not in ("both", "attention", "noise"):
            raise ValueError(f"masks must be both, attention or noise, got {self.masks}")


@dataclass(frozen=True)
class Img2ImgSettings:
    """How image-to-image edits (SDEdit, arXiv 2108.01073); the defaults are diffusers'.

    Attributes:
        strength: share of the steps that are run, and so how much noise is added, in (0, 1].
        guidance: classifier-free, >= 0.
    """

    strength: float = 0.8
    guidance: float = 7.5

    def __post_init__(self) -> None:
        _check_guidance(self.guidance)
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be in (0, 1], got {self.strength}")


def _check_guidance(guidance: float) -> None:
    if not (math.isfinite(guidance) and guidance >= 0):
        raise ValueError(f"guidance must be a number >= 0, got {guidance}")


class EditPrompt(NamedTuple):
    """One prompt of LEDITS++.

    Attributes:
        text: what the image gets more of, or less.
        reverse: less.
        strength: factor on the guidance, >= 0.
    """

    text: str
    reverse: bool
    strength: float = 1.0


class BaselineOutput(NamedTuple):
    """An edited image.

    Attributes:
        image: the result, of the size that the network took.
        rows: how many images the network was given.
    """

    image: Image.Image
    rows: int


def edit_prompts(edits: Sequence[Edit], *, drop_old: bool = False) -> list[EditPrompt]:
    """Return the prompts of LEDITS++: the new phrases, and the deleted ones reversed.

    Args:
        edits: those of strength 0 are left out.
        drop_old: also the replaced phrases, reversed.

    Example:
        >>> edit_prompts([Edit("cat", "dog", 1), Edit("hat", "", 4)])
        [EditPrompt(text='dog', reverse=False, strength=1.0), \
EditPrompt(text='hat', reverse=True, strength=1.0)]
    """
    prompts = []
    for edit in edits:
        if edit.new:
            prompts.append(EditPrompt(edit.new, False, edit.strength))
        if edit.old and (drop_old or not edit.new):
            prompts.append(EditPrompt(edit.old, True, edit.strength))
    return [prompt for prompt in prompts if prompt.strength > 0]


def edit_with_leditspp(
    pipe: Any,
    image: Image.Image,
    edits: Sequence[Edit],
    *,
    prompts: Sequence[EditPrompt] | None = None,
    steps: int = 30,
    settings: LeditsSettings | None = None,
    seed: int = 0,
    resize: bool = False,
) -> BaselineOutput:
    """Return the image edited by LEDITS++; without edits, the image itself.

    The image is inverted without a prompt, as in diffusers' examples: its sampling has no source
    prompt either. The scheduler is SDE-DPM-Solver++ of order 2 with the noise levels of the
    folder's. A network without cross-attention at a quarter of the latents' side has the maps of
    its nearest level averaged down to it.

    Args:
        pipe: a pipeline with the parts of Stable Diffusion 1, 2 or XL; it stays as it is.
        image: sides are multiples of 32.
        edits: made at the same time.
        prompts: in place of those that `edit_prompts` makes.
        steps: of the inversion and of the sampling each, at least 2.
        settings: diffusers' defaults if not given.
        seed: of the noise.
        resize: fit sides to a multiple of 32.

    Raises:
        DataError: the image does not fit, or a prompt is too long.
        ValueError: an option is out of range.
    """
    import torch

    from multi_edits.ledits import ledits_pipeline
    from multi_edits.model import EditingModel
    from multi_edits.words import tokenize

    settings = settings or LeditsSettings()
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    model = EditingModel(pipe)
    image = model.fit(image, resize=resize, multiple_of=LEDITS_SIDE)
    if prompts is None:
        prompts = edit_prompts(edits, drop_old=settings.drop_old)
    if not prompts:
        return BaselineOutput(image, 0)
    if settings.masks != "noise" and min(image.size) < _LEAST_LATENTS * model.vae_factor:
        raise DataError(
            f"the image has {image.width} x {image.height} pixels, too few for masks from "
            f"attention: {_LEAST_LATENTS * model.vae_factor} are needed; or take the masks noise"
        )
    for prompt in prompts:
        tokenize(prompt.text, pipe.tokenizer)
    editor = ledits_pipeline(pipe)
    editor.set_progress_bar_config(disable=True)
    with _untouched(pipe.unet) as rows, torch.no_grad():
        editor.invert(
            image,
            source_prompt="",
            num_inversion_steps=steps,
            skip=settings.skip,
            generator=torch.Generator().manual_seed(seed),
        )
        edited = editor(
            editing_prompt=[prompt.text for prompt in prompts],
            reverse_editing_direction=[prompt.reverse for prompt in prompts],
            edit_guidance_scale=[settings.guidance * prompt.strength for prompt in prompts],
            edit_threshold=[settings.threshold] * len(prompts),
            edit_warmup_steps=[settings.warmup] * len(prompts),
            use_cross_attn_mask=settings.masks == "attention",
            use_intersect_mask=settings.masks == "both",
            output_type="latent",
        )
        return BaselineOutput(model.decode(edited.images.float())[0], sum(rows))


def edit_with_img2img(
    pipe: Any,
    image: Image.Image,
    target_prompt: str,
    *,
    steps: int = 50,
    settings: Img2ImgSettings | None = None,
    seed: int = 0,
    resize: bool = False,
) -> BaselineOutput:
    """Return the image with noise added and taken off again under the target prompt.

    Args:
        pipe: a pipeline with the parts of Stable Diffusion 1, 2 or XL; it stays as it is.
        image: what is edited.
        target_prompt: what the result shall show; brackets are stripped.
        steps: of a whole sampling; `strength` times as many are run.
        settings: diffusers' defaults if not given.
        seed: of the noise.
        resize: fit sides to the autoencoder's factor.

    Raises:
        DataError: the image does not fit, or the prompt is too long.
        ValueError: an option is out of range.
    """
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline

    from multi_edits.model import EditingModel
    from multi_edits.words import strip_brackets, tokenize

    settings = settings or Img2ImgSettings()
    if int(steps * settings.strength) < 1:
        raise ValueError(
            f"{steps} steps at strength {settings.strength} are none; both must be larger"
        )
    model = EditingModel(pipe)
    image = model.fit(image, resize=resize)
    text = tokenize(strip_brackets(target_prompt), pipe.tokenizer)
    large = getattr(pipe, "text_encoder_2", None) is not None
    kind: Any = StableDiffusionXLImg2ImgPipeline if large else StableDiffusionImg2ImgPipeline
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    editor = kind(**parts_for(kind, pipe), scheduler=scheduler)
    editor.set_progress_bar_config(disable=True)
    with _untouched(pipe.unet) as rows, torch.no_grad():
        edited = editor(
            prompt=" ".join(text.words),
            image=image,
            strength=settings.strength,
            num_inference_steps=steps,
            guidance_scale=settings.guidance,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        )
        return BaselineOutput(model.decode(edited.images.float())[0], sum(rows))


def parts_for(kind: Any, pipe: Any) -> dict[str, Any]:
    """Return what another kind of pipeline is made of, but for its scheduler.

    Args:
        kind: a class of diffusers.
        pipe: whose networks are taken; a safety checker and the like are left out.
    """
    names = set(inspect.signature(kind.__init__).parameters)
    parts: dict[str, Any] = {name: getattr(pipe, name) for name in names & set(_NETWORKS)}
    parts |= {name: None for name in names & {"safety_checker", "feature_extractor"}}
    parts |= {name: False for name in names & {"requires_safety_checker", "add_watermarker"}}
    zeros = "force_zeros_for_empty_prompt"
    if zeros in names and zeros in pipe.config:
        parts[zeros] = pipe.config[zeros]
    return parts


@contextmanager
def _untouched(unet: Any) -> Iterator[list[int]]:
    """Count the rows that a network is given, and give it its attention processors back."""
    own, rows = dict(unet.attn_processors), list[int]()
    hook = unet.register_forward_pre_hook(
        lambda _, args, named: rows.append(len(args[0] if args else named["sample"])),
        with_kwargs=True,
    )
    try:
        yield rows
    finally:
        hook.remove()
        unet.set_attn_processor(own)
