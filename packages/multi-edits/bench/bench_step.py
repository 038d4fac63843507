"""One step of the multi-branch loop: its cost beside plain sampling, other forms, one by one.

``python -m pytest packages/multi-edits/bench/bench_step.py -s --device cpu`` (or cuda). The CPU
part uses one thread. Outputs are tested; times and memory are only printed.
"""

from __future__ import annotations

import pytest
import torch
from multi_edits.alignment import refine_mix
from multi_edits.attention import StepPlan, controlled_attention
from multi_edits.branches import Branch, cross_control, self_attention_rows
from papercommons.testing.timing import compare_speed, peak_memory

diffusers = pytest.importorskip("diffusers")

LENGTH = 77
SIDE = {"cpu": 32, "cuda": 64}


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def unet(device):
    """Stable Diffusion's shape: four levels, text at the upper three."""
    torch.manual_seed(0)
    channels = (320, 640, 1280, 1280) if device.type == "cuda" else (16, 32, 64, 64)
    network = diffusers.UNet2DConditionModel(
        block_out_channels=channels,
        attention_head_dim=8 if device.type == "cuda" else 4,
        cross_attention_dim=768 if device.type == "cuda" else 32,
        norm_num_groups=8,
    )
    return network.eval().requires_grad_(False).to(device)


class KeptEverywhere:
    """The same control with probabilities formed in every cross-attention, for comparison."""

    def __init__(self, control):
        self.control = control

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        plan = self.control.plan
        if encoder_hidden_states is None and plan.self_rows is not None:
            q, k, v = (x[rows] for x, rows in zip((q, k, v), plan.self_rows, strict=True))
        scores = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
        if encoder_hidden_states is not None and plan.cross is not None:
            cross = plan.cross
            mixed = scores[cross.before] @ cross.matrix[:, None]
            mixed = mixed + scores[cross.rows] * cross.own[:, None, None]
            scores = scores.index_copy(0, cross.rows, mixed)
        out = attn.to_out[0]((scores @ v).transpose(1, 2).flatten(2))
        return attn.to_out[1](out)


def plan_of(branches, device):
    """Return the plan of an early step, guidance on."""
    none = torch.zeros(LENGTH, dtype=torch.bool)
    partner = [*range(20), -1, *range(21, LENGTH)]
    mix = refine_mix(partner, LENGTH)
    listed = [Branch("rigid", mix, none, none, sharing="structure") for _ in range(branches)]
    rows = 1 + branches
    shared = self_attention_rows(["structure"] * branches, early=True, layout=False)
    index = [torch.tensor([*own, *(rows + r for r in own)], device=device) for own in shared]
    return StepPlan((index[0], index[1], index[2]), cross_control(listed, rows, device), rows)


def inputs(branches, unet, device):
    side, rows = SIDE[device.type], 2 * (1 + branches)
    generator = torch.Generator(device).manual_seed(0)
    options = {"generator": generator, "device": device}
    x = torch.randn(rows, 4, side, side, **options)
    return x, torch.randn(rows, LENGTH, unet.config.cross_attention_dim, **options)


@pytest.mark.parametrize("branches", [1, 3, 5])
def test_step_against_plain_sampling_and_kept_probabilities(branches, unet, device, record):
    x, text = inputs(branches, unet, device)
    plan = plan_of(branches, device)

    def call():
        return unet(x, 500, encoder_hidden_states=text).sample

    def controlled():
        with controlled_attention(unet) as control, torch.no_grad():
            control.plan = plan
            return call()

    def plain():
        with torch.no_grad():
            return call()

    def kept():
        with controlled_attention(unet) as control, torch.no_grad():
            control.plan = plan
            unet.set_attn_processor(KeptEverywhere(control))
            return call()

    torch.testing.assert_close(controlled(), kept(), rtol=1e-2, atol=1e-3)
    memory = {f.__name__: peak_memory(f, device) / 2**20 for f in (controlled, plain, kept)}
    for other in (plain, kept):
        speed = compare_speed(controlled, other, rounds=3)
        record(
            measured=f"a controlled step against {other.__name__} at equal batch",
            size=f"{branches} branches, batch {len(x)}",
            ours=f"{1e3 * speed.ours_s:.1f} ms, {memory['controlled']:.0f} MiB",
            other=f"{1e3 * speed.reference_s:.1f} ms, {memory[other.__name__]:.0f} MiB",
            **speed.ratios(),
            memory=round(memory["controlled"] / memory[other.__name__], 3),
        )


@pytest.mark.parametrize("branches", [2, 4])
def test_together_against_one_by_one(branches, unet, device, record):
    x, text = inputs(branches, unet, device)
    together, alone = plan_of(branches, device), plan_of(1, device)

    def run(plan, rows):
        with controlled_attention(unet) as control, torch.no_grad():
            control.plan = plan
            return unet(x[rows], 500, encoder_hidden_states=text[rows]).sample

    def all_rows():
        return run(together, slice(None))

    def in_turn():
        return [run(alone, slice(0, 4)) for _ in range(branches)]

    speed = compare_speed(all_rows, in_turn, rounds=3)
    record(
        measured="all branches in one step against one run for each",
        size=f"{branches} branches",
        ours=f"{1e3 * speed.ours_s:.1f} ms",
        other=f"{1e3 * speed.reference_s:.1f} ms",
        **speed.ratios(),
    )
