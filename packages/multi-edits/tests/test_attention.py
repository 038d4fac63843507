"""Attention control: reference values, the processor against plain arithmetic, levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from multi_edits.alignment import AttentionMix, refine_mix
from multi_edits.attention import (
    AttentionControl,
    ControlledAttention,
    StepPlan,
    attention_levels,
    controlled_attention,
    map_level,
    map_size,
)
from multi_edits.branches import Branch, cross_control, self_attention_rows

diffusers = pytest.importorskip("diffusers")

from diffusers.models.attention_processor import Attention  # noqa: E402


def mix_of(values, case):
    """Return the mix of a case of the reference."""
    if values[f"{case}_meta"][0]:
        return AttentionMix(values[f"{case}_replace_mapper"], torch.zeros(77), replace=True)
    known = values[f"{case}_alphas"] > 0
    partner = torch.where(known, values[f"{case}_mapper"], -1)
    return refine_mix(partner.tolist(), 77)


def check(values, case):
    """Assert that control of cross- and self-attention is that of the reference."""
    _, step, steps, cross_ratio, self_ratio, heads = values[f"{case}_meta"].tolist()
    done, mix = (step + 1) / steps, mix_of(values, case)
    source, target, layout = values[f"{case}_cross_in"].split(int(heads))
    mapped = mix(source, target)
    expected = source, mapped if done <= cross_ratio else target, layout
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(torch.cat(expected), values[f"{case}_cross_out"], **close)
    stored = torch.cat([mapped, mapped if mix.replace else mix(layout, target)])
    torch.testing.assert_close(stored, values[f"{case}_stored"], **close)
    rows = self_attention_rows(["structure"], early=done < self_ratio, layout=True)
    for half in "uc":
        for name, own in zip("qkv", rows, strict=True):
            given = values[f"{case}_{name}{half}_in"].unflatten(0, (3, int(heads)))
            torch.testing.assert_close(
                given[own].flatten(0, 1), values[f"{case}_{name}{half}_out"], **close
            )


@pytest.mark.parametrize("case", [1, 2, 4])
def test_control_as_in_the_reference(parity, case):
    check(parity("control"), case)


def test_every_control_of_the_reference(shared_files):
    with np.load(shared_files / "parity/multi-edits/attention_control.npz") as file:
        values = {name: torch.from_numpy(file[name]) for name in file.files}
    for case in range(int(values["count"])):
        check(values, case)


def test_sharing_by_kind():
    early = self_attention_rows(["structure", "content", None], early=True, layout=False)
    assert early == ([0, 0, 2, 3], [0, 0, 1, 3], [0, 1, 1, 3])
    assert self_attention_rows(["structure", "content"], early=False, layout=False) is None
    late = self_attention_rows(["structure", "content"], early=False, layout=True)
    assert late == ([0, 1, 2, 1, 2], [0, 1, 2, 0, 1], [0, 1, 2, 0, 1])


def attention(cross):
    """Return one attention layer of diffusers, of 2 heads of 4 channels."""
    torch.manual_seed(0)
    return Attention(
        query_dim=8, cross_attention_dim=6 if cross else None, heads=2, dim_head=4, bias=True
    ).requires_grad_(False)


def plain(layer, query, key, value, scale):
    """Return the layer's output by probabilities; any of them may come from other rows."""
    probabilities = (query @ key.transpose(-1, -2) * scale).softmax(-1)
    return layer.to_out[0]((probabilities @ value).transpose(1, 2).flatten(2))


def heads(states):
    return states.unflatten(-1, (2, 4)).transpose(1, 2)


def test_cross_attention_is_mixed_as_probabilities_would_be():
    layer, length = attention(cross=True), 5
    x, text = torch.randn(6, 9, 8), torch.randn(6, length, 6)
    none = torch.zeros(length, dtype=torch.bool)
    replace = AttentionMix(torch.rand(length, length), torch.zeros(length), replace=True)
    refine = refine_mix([0, -1, 1, 2], length)
    branches = [Branch("rigid", mix, none, none) for mix in (replace, refine)]
    control = AttentionControl()
    control.plan = StepPlan(None, cross_control(branches, 3, x.device), keep_maps=3)
    layer.set_processor(ControlledAttention(control, keeps_maps=True))
    q, k, v = heads(layer.to_q(x)), heads(layer.to_k(text)), heads(layer.to_v(text))
    own = (q @ k.transpose(-1, -2) * layer.scale).softmax(-1)
    mixed = own.clone()
    mixed[4], mixed[5] = replace(own[3], own[4]), refine(own[4], own[5])
    expected = layer.to_out[0]((mixed @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, text), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(control.maps, own[3:].mean(1), rtol=1e-4, atol=1e-6)


def test_self_attention_takes_the_planned_rows():
    layer = attention(cross=False)
    x = torch.randn(3, 9, 8)
    rows = [torch.tensor(r) for r in ([0, 0, 2], [0, 0, 1], [0, 1, 1])]
    control = AttentionControl()
    control.plan = StepPlan((rows[0], rows[1], rows[2]), None)
    layer.set_processor(ControlledAttention(control))
    q, k, v = (
        heads(f(x))[r] for f, r in zip((layer.to_q, layer.to_k, layer.to_v), rows, strict=True)
    )
    expected = plain(layer, q, k, v, layer.scale)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_without_a_plan_the_network_is_as_it_was(stock):
    x, text = torch.randn(2, 4, 16, 16), torch.randn(2, 5, 64)
    own = dict(stock.unet.attn_processors)
    with torch.no_grad():
        before = stock.unet(x, 500, encoder_hidden_states=text).sample
        with controlled_attention(stock.unet) as control:
            after = stock.unet(x, 500, encoder_hidden_states=text).sample
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert stock.unet.attn_processors == own
    with pytest.raises(RuntimeError, match="no cross-attention maps"):
        _ = control.maps


def test_the_networks_own_processors_come_back_after_an_error(stock):
    own = dict(stock.unet.attn_processors)
    with pytest.raises(AttributeError), torch.no_grad(), controlled_attention(stock.unet):
        stock.unet("no latents", 500, encoder_hidden_states=None)
    assert stock.unet.attn_processors == own


def network(down, up, channels):
    return diffusers.UNet2DConditionModel(
        block_out_channels=channels,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=1,
    )


CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
DOWN, UP = "DownBlock2D", "UpBlock2D"


@pytest.mark.parametrize(
    ("down", "up", "level", "layers"),
    [
        ((CROSS_DOWN,) * 3 + (DOWN,), (UP,) + (CROSS_UP,) * 3, 2, 1 + 2),  # Stable Diffusion 1
        ((DOWN, CROSS_DOWN, CROSS_DOWN), (CROSS_UP, CROSS_UP, UP), 2, 1 + 2),  # XL
        ((DOWN, CROSS_DOWN), (CROSS_UP, UP), 1, 1 + 2),
        ((DOWN, DOWN), (UP, UP), 1, 1),  # text only in the middle
    ],
)
def test_maps_are_kept_at_a_quarter_of_the_side_or_nearest(down, up, level, layers):
    unet = network(down, up, (4,) * len(down))
    assert map_level(unet) == level
    with controlled_attention(unet) as control, torch.no_grad():
        control.plan = StepPlan(keep_maps=1)
        unet(torch.randn(1, 4, 18, 12), 1, encoder_hidden_states=torch.randn(1, 5, 8))
    height, width = map_size((18, 12), level)
    assert control.maps.shape == (1, height * width, 5)
    assert control.layers == layers
    torch.testing.assert_close(control.maps.sum(-1), torch.ones(1, height * width))


def test_another_level_can_be_asked_for(stock):
    assert map_level(stock.unet) == 1
    assert map_level(stock.unet, 0) == 0
    assert set(attention_levels(stock.unet).values()) == {0, 1}
    with pytest.raises(ValueError, match=r"one of \[0, 1\] in this model, got 3"):
        map_level(stock.unet, 3)
