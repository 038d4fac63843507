"""Local blending: reference values, thresholds, masks of the user's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from multi_edits.blending import edit_threshold, latent_mask, local_blend, token_map


def blend(values, case):
    """Return the reference's blend with our functions."""
    meta = values[f"{case}_meta"].tolist()
    height, width, heads = map(int, meta[:3])
    alpha_bar, thresh_e, thresh_m, temperature, last = meta[4:]
    maps = torch.stack([values[f"{case}_map{k}"] for k in range(5)])
    before, layout = maps[:, :heads].mean((0, 1)), maps[:, heads:].mean((0, 1))
    edit, keep = values[f"{case}_alpha_e"] > 0, values[f"{case}_alpha_m"] > 0

    def seen(which, tokens):
        return token_map(which, tokens, (height // 4, width // 4), (height, width))

    threshold = edit_threshold(alpha_bar, thresh_e, temperature=temperature)
    return local_blend(
        *(values[f"{case}_{name}"] for name in ("x_t", "x_s", "x_m")),
        seen(layout, edit) > threshold,
        seen(before, keep & ~edit) > thresh_m,
        (seen(layout, keep & edit) > thresh_e) if last else None,
    )


def test_blend_as_in_the_reference(parity):
    values = parity("blend")
    torch.testing.assert_close(blend(values, 3), values["3_out_x_t"], rtol=0, atol=1e-5)


def test_every_blend_of_the_reference(shared_files):
    with np.load(shared_files / "parity/multi-edits/local_blend.npz") as file:
        values = {name: torch.from_numpy(file[name]) for name in file.files}
    for case in range(4):
        torch.testing.assert_close(
            blend(values, case), values[f"{case}_out_x_t"], rtol=0, atol=1e-5
        )


def test_map_is_of_the_greatest_chosen_token_and_has_maximum_1():
    maps = torch.zeros(4, 3)
    maps[0, 1], maps[3, 2], maps[1, 0] = 0.2, 0.4, 0.9
    seen = token_map(maps, torch.tensor([False, True, True]), (2, 2), (4, 4))
    assert torch.equal(seen[::2, ::2], torch.tensor([[0.5, 0.0], [0.0, 1.0]]))
    assert torch.equal(seen, seen[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1))
    none = token_map(maps, torch.zeros(3, dtype=torch.bool), (2, 2), (4, 4))
    assert torch.equal(none, torch.zeros(4, 4))


def test_nothing_counts_as_edited_while_noise_prevails():
    assert edit_threshold(0.0047, 0.5) > 1
    assert edit_threshold(0.9, 0.5) == 0.5
    assert edit_threshold(0.04, 0.5) == pytest.approx(0.15 / math.sqrt(0.04))


def test_a_mask_covers_every_latent_it_touches():
    mask = torch.zeros(8, 12)
    mask[3, 4] = 255
    expected = torch.zeros(2, 3, dtype=torch.bool)
    expected[0, 1] = True
    assert torch.equal(latent_mask(mask, (2, 3)), expected)
    assert latent_mask(torch.eye(9) > 0, (2, 2)).tolist() == [[True, True], [True, True]]
    for wrong in (torch.zeros(4, 4), torch.ones(1, 4, 4)):
        with pytest.raises(ValueError, match="mark something"):
            latent_mask(wrong, (2, 2))
