"""diffusers' LEDITS++ pipelines, made to work on networks and tokenizers of any size."""

from __future__ import annotations

import math
from typing import Any

from diffusers import (
    DPMSolverMultistepScheduler,
    LEditsPPPipelineStableDiffusion,
    LEditsPPPipelineStableDiffusionXL,
)
from diffusers.pipelines.ledits_pp.pipeline_leditspp_stable_diffusion import LeditsAttentionStore
from torch import Tensor
from torch.nn import functional as F

from multi_edits.attention import attention_levels, map_size
from multi_edits.baselines import parts_for
from multi_edits.words import tokenize

_LEVEL = 2  # how often latents are halved where LEDITS++ takes its maps


class NearestLevelStore(LeditsAttentionStore):
    """Keeps the maps of one level and gives them at a quarter of the latents' side.

    diffusers' own store keeps what is no larger than that, which is nothing in networks whose
    cross-attention is all finer, and then fails.

    Args:
        unet: whose level is the one nearest to a quarter, outside of the middle block.
        latent_size: height and width.
        batch_size: images.
    """

    def __init__(self, unet: Any, latent_size: tuple[int, int], batch_size: int) -> None:
        levels = {
            level
            for name, level in attention_levels(unet).items()
            if "attn2" in name and not name.startswith("mid_block")
        }
        level = min(levels, key=lambda level: (abs(level - _LEVEL), level))
        self.kept = map_size(latent_size, level)
        super().__init__(
            average=True,
            batch_size=batch_size,
            max_size=math.prod(self.kept),
            max_resolution=None,  # type: ignore[arg-type]
        )

    def aggregate_attention(
        self,
        attention_maps: dict[str, list[Tensor]],
        prompts: list[str],
        res: int | tuple[int, ...],
        from_where: list[str],
        is_cross: bool,
        select: int,
    ) -> Tensor:
        """Return the mean map of a prompt's tokens, (B, *res, L)."""
        maps = super().aggregate_attention(
            attention_maps,
            prompts,
            self.kept,  # type: ignore[arg-type]
            from_where,
            is_cross,
            select,
        )
        size: Any = res
        return F.adaptive_avg_pool2d(maps.movedim(-1, 1), size).movedim(1, -1)


class _AnySize:
    """What both pipelines need."""

    attention_store: LeditsAttentionStore
    init_latents: Tensor
    unet: Any
    tokenizer: Any
    batch_size: int

    def prepare_unet(self, attention_store: LeditsAttentionStore, PnP: bool = False) -> None:
        """Put processors in that keep maps, in a store of ours."""
        height, width = self.init_latents.shape[-2:]
        self.attention_store = NearestLevelStore(self.unet, (height, width), self.batch_size)
        super().prepare_unet(self.attention_store, PnP)  # type: ignore[misc]

    def encode_prompt(self, *args: Any, **options: Any) -> tuple[Any, ...]:
        """Return what diffusers does, but with the number of tokens without padding."""
        *states, _ = super().encode_prompt(*args, **options)  # type: ignore[misc]
        prompts = options.get("editing_prompt") or []
        counts = [len(tokenize(prompt, self.tokenizer).ids) - 2 for prompt in prompts]
        return (*states, counts)


class _Plain(_AnySize, LEditsPPPipelineStableDiffusion):
    pass


class _Large(_AnySize, LEditsPPPipelineStableDiffusionXL):
    pass


def ledits_pipeline(pipe: Any) -> Any:
    """Return a LEDITS++ pipeline over the networks of another one.

    Its scheduler is SDE-DPM-Solver++ of order 2 with the same noise levels: with DDIM, the other
    one that diffusers names, its inversion fails on an index that is no integer.

    Args:
        pipe: with the parts of Stable Diffusion 1, 2 or XL.
    """
    large = getattr(pipe, "text_encoder_2", None) is not None
    kind: Any = _Large if large else _Plain
    scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, algorithm_type="sde-dpmsolver++", solver_order=2
    )
    base = LEditsPPPipelineStableDiffusionXL if large else LEditsPPPipelineStableDiffusion
    return kind(**parts_for(base, pipe), scheduler=scheduler)
