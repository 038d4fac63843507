"""Texts as the network takes them, for text encoders of Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def encode_texts(
    texts: Sequence[str], encoders: Sequence[tuple[Any, Any]], *, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return the states of texts; with two encoders their last but one layers, side by side.

    Args:
        texts: K of them, no longer than the encoders take.
        encoders: tokenizer and text encoder; one pair, or two (XL).
        device: of the encoders.

    Returns:
        States, float, (K, L, D), and of XL the pooled vectors, float, (K, E), else None.
    """
    states, pooled = [], None
    for tokenizer, encoder in encoders:
        tokens = tokenizer(
            list(texts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        masked = getattr(encoder.config, "use_attention_mask", False)
        out = encoder(
            tokens.input_ids.to(device),
            attention_mask=tokens.attention_mask.to(device) if masked else None,
            output_hidden_states=len(encoders) > 1,
        )
        if len(encoders) == 1:
            return out[0], None
        states.append(out.hidden_states[-2])
        pooled = out[0]  # of the second encoder, the one with a projection
    return torch.cat(states, dim=-1), pooled
