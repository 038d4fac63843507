"""The multi-branch loop: reference values, identities, chain, blend, strengths."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from multi_edits import SamplingSettings, sample_branches
from multi_edits.alignment import AttentionMix, refine_mix
from multi_edits.attention import AttentionControl, controlled_attention
from multi_edits.branches import Branch, row_prompts

diffusers = pytest.importorskip("diffusers")

NOTHING = torch.zeros(77, dtype=torch.bool)


@pytest.fixture(scope="module")
def demo(data):
    with np.load(data / "multi_branch.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def unet(demo):
    network = diffusers.UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(8, 8, 16),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()
    weights, start = {}, 0
    for name, tensor in sorted(network.state_dict().items()):
        weights[name] = demo["unet"][start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    assert start == len(demo["unet"])
    network.load_state_dict(weights)
    return network


@pytest.fixture(scope="module")
def alphas(parity):
    return parity("ddcm")["alphas_cumprod"].tolist()


def branches_of(values, *, sharing):
    """Return the reference's branches."""
    found = []
    for n in range(3):
        if f"b{n}_replace_mapper" in values:
            mix = AttentionMix(values[f"b{n}_replace_mapper"], torch.zeros(77), replace=True)
        else:
            partner = torch.where(values[f"b{n}_alphas"] > 0, values[f"b{n}_mapper"], -1)
            mix = refine_mix(partner.tolist(), 77)
        tokens = values[f"b{n}_alpha_e"] > 0
        found.append(Branch("rigid", mix, tokens, NOTHING, sharing=sharing[n]))
    return found


def sample(unet, values, alphas, branches, settings, on_step=None, prompts=None):
    """Run the loop on the reference's inputs."""
    rows = row_prompts(len(branches), layout=settings.has_layout)
    texts = (
        torch.cat([values["emb_source"], values["emb_branches"]]) if prompts is None else prompts
    )
    states = texts[rows]
    if settings.guided:
        states = torch.cat([values["emb_uncond"].expand_as(states), states])
    with controlled_attention(unet) as control:
        return sample_branches(
            lambda x, t: unet(x, t, encoder_hidden_states=states).sample,
            control,
            branches,
            x0=values["z0"],
            noises=iter([values["init_noise"], *values["step_noise"]]),
            timesteps=values["timesteps"].tolist(),
            alpha_bars=alphas,
            map_size=(8, 8),
            settings=settings,
            on_step=on_step,
        )


REFERENCE = SamplingSettings(guidance=3.0, compat="reference")


def test_loop_as_in_the_reference(unet, demo, alphas):
    states = []
    branches = branches_of(demo, sharing=(None, None, "structure"))
    result = sample(unet, demo, alphas, branches, REFERENCE, states.append)
    close = {"rtol": 0, "atol": 2e-4}
    for step in (0, 6):
        torch.testing.assert_close(states[step].x0[-1:], demo[f"s{step}_target_x0"], **close)
    torch.testing.assert_close(result.x0, demo["final_target_x0"], **close)


def test_loop_with_self_attention_control_everywhere(unet, demo, alphas, shared_files):
    folder = shared_files / "parity/multi-edits"
    with np.load(folder / "multi_branch_selfattn.npz") as file:
        values = {name: torch.from_numpy(file[name]) for name in file.files}
    stated = json.loads((folder / "multi_branch_selfattn.json").read_text())
    settings = SamplingSettings(
        guidance=stated["guidance_target"],
        cross_ratio=stated["cross_replace"],
        self_ratio=stated["self_replace"],
        edit_threshold=stated["thresh_e"],
        thresh_keep=stated["thresh_m"],
        compat="reference",
    )
    states = []
    branches = branches_of(values, sharing=["structure"] * 3)
    result = sample(unet, values, alphas, branches, settings, states.append)
    close = {"rtol": 0, "atol": 2e-4}
    for state in states:
        ours = {"target_x0": state.x0, "target_prev": state.targets}
        ours |= {"layout_x0": state.layout_x0, "layout_prev": state.layouts}
        for name, tensor in ours.items():
            if f"s{state.step}_{name}" in values:
                torch.testing.assert_close(tensor, values[f"s{state.step}_{name}"], **close)
    torch.testing.assert_close(result.x0, values["final_target_x0"], **close)


@pytest.mark.parametrize("layout", [False, True])
def test_equal_prompts_at_equal_guidance_return_the_source(unet, demo, alphas, layout):
    branches = branches_of(demo, sharing=("structure", "content", None))
    equal = [
        Branch("rigid", refine_mix(range(77), 77), b.edit_tokens, NOTHING, sharing=b.sharing)
        for b in branches
    ]
    settings = SamplingSettings(guidance=3.0, source_guidance=3.0, layout=layout)
    prompts = demo["emb_source"].expand(4, -1, -1)
    result = sample(unet, demo, alphas, equal, settings, prompts=prompts)
    torch.testing.assert_close(result.x0, demo["z0"].expand(3, -1, -1, -1), rtol=0, atol=1e-4)


def toy(values, branches, *, size=4, steps=6, on_step=None, **settings):
    """Sample with a network that predicts one number for each row, without attention."""
    generator = torch.Generator().manual_seed(0)
    noises = iter(torch.randn(steps + 1, 1, 1, size, size, generator=generator))
    rows = torch.tensor(values).view(-1, 1, 1, 1)
    options = {"guidance": 1.0, "source_guidance": 1.0} | settings
    return sample_branches(
        lambda x, t: rows.expand_as(x) * (1 + t / 1000),
        AttentionControl(),
        branches,
        x0=torch.full((1, 1, size, size), 0.3),
        noises=noises,
        timesteps=[999 - 90 * k for k in range(steps)],
        alpha_bars=np.linspace(0.99, 0.2, 1000).tolist(),
        map_size=(size, size),
        settings=SamplingSettings(**options),
        on_step=on_step,
    ).x0


def free(strength=1.0, mask=None):
    kind = "global" if mask is None else "rigid"
    return Branch(kind, None, NOTHING, NOTHING, strength=strength, mask=mask)


def test_a_branch_does_not_see_those_after_it():
    alone = toy([0.0, 0.3], [free()])
    both = toy([0.0, 0.3, -0.2], [free(), free()])
    torch.testing.assert_close(both[:1], alone)
    assert not torch.allclose(both[1], both[0])


def test_once_chained_a_branch_only_changes_where_it_differs_from_the_one_before():
    states = []
    toy([0.0, 0.3, 0.3], [free(), free()], chain_start=0.5, on_step=states.append)
    first, second = zip(*(state.x0 for state in states), strict=True)
    for step in range(6):
        assert torch.allclose(second[step], first[step]) == (step < 3)
    assert torch.allclose(second[5], second[2])


def test_the_published_chain_binds_the_last_branch_to_the_source():
    steps = 10  # chained from the eighth on
    values = [0.0, 0.3, -0.2, 0.0, 0.0]
    both = toy(values, [free(), free()], steps=steps, compat="reference", size=2)
    alone = toy([0.0, -0.2, 0.0], [free()], steps=steps, compat="reference", size=2)
    torch.testing.assert_close(both[1:], alone)


def test_strength_scales_the_change_and_0_leaves_it_out():
    none, half, full = (
        toy([0.0, 0.3, -0.2], [free(), free(strength)], chain_start=1.0)
        for strength in (0.0, 0.5, 1.0)
    )
    assert torch.equal(none[1], none[0])
    torch.testing.assert_close(half[1] - half[0], (full[1] - full[0]) / 2)
    assert torch.equal(half[0], full[0])


def test_outside_its_mask_a_branch_is_the_one_before():
    left, right = torch.zeros(2, 4, 4, dtype=torch.bool)
    left[:, :2], right[:, 3:] = True, True
    first, second = toy([0.0, 0.3, -0.2], [free(mask=left), free(mask=right)]).squeeze(1)
    assert torch.equal(first[~left], torch.full((8,), 0.3))
    assert not (first[left] == 0.3).any()
    outside = ~(left | right)
    assert torch.equal(second[outside], first[outside])
    assert not torch.isclose(second[right], first[right]).any()


def test_a_branch_leaves_the_region_of_others_alone_unless_masks_are_gathered():
    left, right = torch.zeros(2, 4, 4, dtype=torch.bool)
    left[:, :2], right[:, 3:] = True, True
    branches = [free(mask=left), free(mask=right)]
    first, own = toy([0.0, 0.3, -0.2], branches, gather_masks=False).squeeze(1)
    assert torch.equal(first[left], own[left])
    gathered = toy([0.0, 0.3, -0.2], branches).squeeze(1)[1]
    assert not torch.isclose(first[left], gathered[left]).any()
    torch.testing.assert_close(own[right], gathered[right])


def test_order_of_disjoint_branches_does_not_matter_elsewhere():
    left, right = torch.zeros(2, 4, 4, dtype=torch.bool)
    left[:, :1], right[:, 3:] = True, True
    one = toy([0.0, 0.3, 0.5], [free(mask=left), free(mask=right)])[-1, 0]
    other = toy([0.0, 0.2, 0.5], [free(mask=right), free(mask=left)])[-1, 0]
    assert torch.equal(one[~(left | right)], other[~(left | right)])


def test_settings_and_sizes_are_checked():
    for wrong in ({"cross_ratio": 1.2}, {"guidance": float("nan")}, {"compat": "new"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            SamplingSettings(**wrong)
    with pytest.raises(ValueError, match="needs the layout streams"):
        SamplingSettings(compat="reference", layout=False)
    with pytest.raises(ValueError, match="at least two steps, got 1 and 1"):
        toy([0.0, 0.1], [free()], steps=1)
    with pytest.raises(ValueError, match="needs a branch"):
        toy([0.0], [])
