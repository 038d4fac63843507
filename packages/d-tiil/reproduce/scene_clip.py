"""A CLIP model of scenes, trained on what the diffusion model is trained on: a fair likeness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from d_tiil.tokenizer import make_tokenizer
from papercommons.data.scene_data import draw_scenes
from papercommons.data.scenes import find_preset, longest_caption, words
from papercommons.training import seed_everything
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

WIDTH, SIDE, PATCH = 64, 32, 4
STEPS, BATCH, LR = 600, 64, 2e-3
SCENES = 6000  # the first ones of the diffusion model's


def train_clip(folder: Path, *, preset: str = "simple", steps: int = STEPS, seed: int = 0) -> None:
    """Train a small CLIP model and write it as transformers does.

    Args:
        folder: gets the model, the tokenizer and the processor.
        preset: of the scenes.
        steps: of AdamW; pictures and captions of a batch are told apart.
        seed: of scenes, weights and order.
    """
    seed_everything(seed)
    known = find_preset(preset)
    tokenizer = make_tokenizer(words(known), longest_caption(known) + 2)
    model: Any = CLIPModel(_config(len(tokenizer), tokenizer))
    scenes = draw_scenes(known, min(SCENES, steps * BATCH), seed=seed)
    side = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessor(size=side, crop_size=side, do_resize=False)
    tokens = tokenizer(
        [scene.caption() for scene in scenes], padding="max_length", return_tensors="pt"
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.1)
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std)
    )
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(scenes), (BATCH,))
        pictures = np.stack([scenes[row].render(SIDE) for row in rows.tolist()])
        pixels = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
        found = model(
            pixel_values=(pixels - mean) / std,
            input_ids=tokens.input_ids[rows],
            attention_mask=tokens.attention_mask[rows],
        )
        loss = _told_apart(found.logits_per_image, tokens.input_ids[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)


def _told_apart(logits: torch.Tensor, captions: torch.Tensor) -> torch.Tensor:
    """Return CLIP's loss; equal captions of a batch share the target."""
    same = (captions[:, None] == captions[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _config(vocabulary: int, tokenizer: Any) -> CLIPConfig:
    small = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    text = {
        **small,
        "num_hidden_layers": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**small, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": PATCH}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
