"""Attention control in a diffusers UNet: who attends with whose queries, keys and values.

Control never needs attention probabilities: ``A_before @ matrix + A_own * own`` times the values V
is attention over ``matrix @ V`` with the queries and keys of the branch before, plus attention
over ``own * V``. They are formed only where maps are kept, at a quarter of the latents' side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

MAP_LEVEL = 2  # halvings from the latents to the kept maps


@dataclass(frozen=True)
class CrossControl:
    """Cross-attention of some rows of the batch, mixed from other rows' and their own.

    Attributes:
        rows: controlled rows, int64, (n,).
        before: for each the row whose attention it takes, int64, (n,).
        matrix: float, (n, L, L), see `multi_edits.alignment.AttentionMix`.
        own: float, (n, L).
    """

    rows: Tensor
    before: Tensor
    matrix: Tensor
    own: Tensor


@dataclass(frozen=True)
class StepPlan:
    """What attention does in one call of the network.

    Attributes:
        self_rows: for queries, keys and values the row that each row takes them from, int64,
            (B,) each; None leaves self-attention alone.
        cross: control of cross-attention, if any.
        keep_maps: how many rows at the end of the batch have their maps kept; 0 for none.
    """

    self_rows: tuple[Tensor, Tensor, Tensor] | None = None
    cross: CrossControl | None = None
    keep_maps: int = 0


class AttentionControl:
    """What the processors of one network share: the running step's plan, and the maps so far."""

    def __init__(self) -> None:
        self.plan = StepPlan()
        self.kept: Tensor | None = None
        self.layers = 0

    def forget(self) -> None:
        """Drop plan and maps, before another run."""
        self.plan, self.kept, self.layers = StepPlan(), None, 0

    def keep(self, query: Tensor, key: Tensor, scale: float) -> None:
        """Add the probabilities' mean over heads to the kept maps.

        Args:
            query: float, (R, heads, P, d).
            key: float, (R, heads, L, d).
            scale: of their product.
        """
        scores = (query.float() * scale) @ key.float().transpose(-1, -2)
        maps = scores.softmax(-1).mean(1)
        self.kept = maps if self.kept is None else self.kept + maps
        self.layers += 1

    @property
    def maps(self) -> Tensor:
        """Mean cross-attention over steps, layers and heads, float32, (R, P, L).

        Raises:
            RuntimeError: no layer has kept any.
        """
        if self.kept is None:
            raise RuntimeError("no cross-attention maps were kept")
        return self.kept / self.layers


class ControlledAttention:
    """An attention processor of diffusers that follows the plan of an `AttentionControl`.

    Args:
        control: shared by the processors of one network.
        keeps_maps: whether this layer's cross-attention maps are kept.
    """

    def __init__(self, control: AttentionControl, *, keeps_maps: bool = False) -> None:
        self.control, self.keeps_maps = control, keeps_maps

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's output, as diffusers' own processor does where nothing is planned."""
        residual, plan = hidden_states, self.control.plan
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        image_shape = hidden_states.shape if hidden_states.ndim == 4 else None
        if image_shape is not None:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        is_cross = encoder_hidden_states is not None
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if is_cross and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        query = _heads(attn.to_q(hidden_states), attn.heads)
        key, value = _heads(attn.to_k(context), attn.heads), _heads(attn.to_v(context), attn.heads)
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        mask = _mask(attn, attention_mask, context.shape[1], len(query))
        if is_cross and self.keeps_maps and plan.keep_maps:
            self.control.keep(query[-plan.keep_maps :], key[-plan.keep_maps :], attn.scale)
        if is_cross:
            out = _cross(query, key, value, plan.cross, mask, attn.scale)
        else:
            if plan.self_rows is not None:
                q, k, v = plan.self_rows
                query, key, value = query[q], key[k], value[v]
            out = F.scaled_dot_product_attention(query, key, value, mask, scale=attn.scale)
        out = out.transpose(1, 2).flatten(2).to(query.dtype)
        out = attn.to_out[1](attn.to_out[0](out))
        if image_shape is not None:
            out = out.transpose(-1, -2).reshape(image_shape)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor


def _heads(states: Tensor, heads: int) -> Tensor:
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def _mask(attn: Any, mask: Tensor | None, length: int, batch: int) -> Tensor | None:
    if mask is None:
        return None
    return attn.prepare_attention_mask(mask, length, batch).view(batch, attn.heads, -1, length)


def _cross(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    control: CrossControl | None,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    if control is None:
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    rows, before = control.rows, control.before
    own = value[rows]
    moved = control.matrix.to(value)[:, None] @ own
    kept = value.index_copy(0, rows, own * control.own.to(value)[:, None, :, None])
    out = F.scaled_dot_product_attention(query, key, kept, mask, scale=scale)
    mask = None if mask is None else mask[before]
    taken = F.scaled_dot_product_attention(query[before], key[before], moved, mask, scale=scale)
    return out.index_add(0, rows, taken)


def attention_levels(unet: Any) -> dict[str, int]:
    """Return for each attention processor's name how often its images are halved.

    Args:
        unet: a UNet2DConditionModel.

    Returns:
        Levels of the layers in down and up blocks; those in the middle are left out unless the
        network has no others with text.
    """
    down = _levels(unet.down_blocks, "downsamplers")
    up = _levels(unet.up_blocks, "upsamplers")
    deepest = down[-1]
    levels = {f"down_blocks.{k}.": level for k, level in enumerate(down[:-1])}
    levels |= {f"up_blocks.{k}.": deepest - level for k, level in enumerate(up[:-1])}
    found = {
        name: level
        for name in unet.attn_processors
        for prefix, level in levels.items()
        if name.startswith(prefix)
    }
    if not any("attn2" in name for name in found):
        found |= {n: deepest for n in unet.attn_processors if n.startswith("mid_block.")}
    return found


def _levels(blocks: Sequence[Any], sampler: str) -> list[int]:
    """Return for each block how many blocks before it resample, and at the end how many do."""
    resamples = [bool(getattr(block, sampler, None)) for block in blocks]
    return [sum(resamples[:k]) for k in range(len(resamples) + 1)]


def map_level(unet: Any, wanted: int | None = None) -> int:
    """Return the level of cross-attention whose maps are kept.

    Args:
        unet: a UNet2DConditionModel.
        wanted: a level; the one closest to a quarter of the latents' side if not given.

    Raises:
        ValueError: the network has no cross-attention, or none at the wanted level.
    """
    levels = {level for name, level in attention_levels(unet).items() if "attn2" in name}
    if not levels:
        raise ValueError("the network has no cross-attention; a text-to-image model is needed")
    if wanted is not None and wanted not in levels:
        raise ValueError(f"map_level must be one of {sorted(levels)} in this model, got {wanted}")
    if wanted is not None:
        return wanted
    return min(levels, key=lambda level: (abs(level - MAP_LEVEL), level))


def map_size(latent_size: tuple[int, int], level: int) -> tuple[int, int]:
    """Return height and width of attention maps at a level; odd sides are rounded up.

    Args:
        latent_size: height and width of the latents.
        level: how often they are halved.
    """
    height, width = (-(-side // 2**level) for side in latent_size)
    return height, width


@contextmanager
def controlled_attention(unet: Any, *, keep_level: int | None = None) -> Iterator[AttentionControl]:
    """Put controlled processors into a network for a while; its own come back afterwards.

    Args:
        unet: a UNet2DConditionModel.
        keep_level: see `map_level`.

    Yields:
        What the processors share; without a plan they compute plain attention.
    """
    control, levels = AttentionControl(), attention_levels(unet)
    level = map_level(unet, keep_level)
    own = dict(unet.attn_processors)
    unet.set_attn_processor(
        {
            name: ControlledAttention(
                control, keeps_maps="attn2" in name and levels.get(name) == level
            )
            for name in own
        }
    )
    try:
        yield control
    finally:
        unet.set_attn_processor(own)
