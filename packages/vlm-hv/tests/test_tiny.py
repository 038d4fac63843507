from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from vlm_hv.loading import load_model
from vlm_hv.tiny import tiny_paligemma, tiny_qwen2_vl


def noise(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_paligemma_has_every_part_at_the_stated_size():
    model, processor = tiny_paligemma()
    assert 250_000 < sum(p.numel() for p in model.parameters()) < 260_000
    batch = processor(
        text=["<image><image>answer en same writer?"],
        images=[[noise(0), noise(1)]],
        suffix=["yes"],
        return_tensors="pt",
    )
    assert batch["pixel_values"].shape == (2, 3, 64, 64)
    assert (batch["input_ids"] == processor.image_token_id).sum() == 2 * 64
    model(**batch).loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []


@pytest.mark.parametrize("make", [tiny_paligemma, tiny_qwen2_vl])
def test_weights_follow_from_the_seed_and_leave_torch_alone(make):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (make(seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [tiny_paligemma, tiny_qwen2_vl])
def test_a_saved_model_loads_as_any_other(make, save_tiny, tmp_path):
    model, processor = make()
    folder = save_tiny(model, processor, tmp_path / "model")
    loaded = load_model(folder, device="cpu")
    assert loaded.source == str(folder)
    assert not loaded.model.training
    assert loaded.processor.tokenizer.padding_side == "left"
    weights = model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in loaded.model.state_dict().items())
    assert (
        json.loads((folder / "config.json").read_text())["model_type"]
        == loaded.model.config.model_type
    )


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (tiny_paligemma, {"size": 60}),
        (tiny_paligemma, {"width": 40}),
        (tiny_paligemma, {"layers": 0}),
        (tiny_qwen2_vl, {"width": 8}),
    ],
)
def test_sizes_that_do_not_divide_are_refused(make, options):
    with pytest.raises(ValueError, match="must be a multiple of"):
        make(**options)
