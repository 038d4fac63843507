"""Answers read from the logits behind the prompt, without generating, and features seen once.

The vision tower sees each picture on its own, so pairs that share pictures, and above all a pair
and its swapped order, share what it computes; only the language model runs per prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlm_hv.prompting import first_tokens

# vision towers whose features of one picture depend on that picture alone, one block per picture
SHARES_FEATURES = frozenset({"paligemma", "qwen2_vl", "qwen2_5_vl", "gemma3"})


def last_logits(
    model: Any, inputs: dict[str, Tensor], *, pictures: Sequence[int] | None = None, keep: int = 1
) -> Tensor:
    """Return the logits at the last positions.

    Args:
        model: of transformers.
        inputs: on the model's device, padded on the left.
        pictures: for each picture of the batch in order, which content it has (0, 1, ...): equal
            numbers are equal pictures, and the vision tower sees each once, where the
            architecture allows it.
        keep: how many positions, >= 1; the language model's head computes only these.

    Returns:
        float32, shape (B, keep, vocabulary).
    """
    known = inspect.signature(model.forward).parameters
    given: dict[str, Any] = dict(inputs)
    if "use_cache" in known:
        given["use_cache"] = False
    if pictures is not None and len(set(pictures)) < len(pictures):
        given = share_features(model, given, pictures)
    if "logits_to_keep" in known:
        given["logits_to_keep"] = keep
    logits: Tensor = model(**given).logits
    return logits[:, -keep:].float()


def can_share_features(model: Any) -> bool:
    """Return whether `share_features` knows this architecture."""
    takes = "mm_encoder_outputs" in inspect.signature(model.forward).parameters
    return takes and model.config.model_type in SHARES_FEATURES


def share_features(model: Any, inputs: dict[str, Any], pictures: Sequence[int]) -> dict[str, Any]:
    """Return inputs in which the vision tower's output stands for the pictures' pixels.

    Args:
        model: of transformers.
        inputs: with pixel_values.
        pictures: see `last_logits`.

    Returns:
        the same inputs where the architecture is not known.
    """
    if not can_share_features(model) or "pixel_values" not in inputs:
        return inputs
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    distinct, where = torch.unique(torch.tensor(pictures), return_inverse=True)
    first = [pictures.index(number) for number in distinct.tolist()]
    shared = dict(inputs)
    pixels = shared.pop("pixel_values")
    grid = inputs.get("image_grid_thw")
    if grid is None:
        seen = model.get_image_features(pixels[first], return_dict=True)
    else:  # patches of all pictures in one row, as many as the grid says
        blocks = pixels.split(grid.prod(dim=1).tolist())
        some = torch.cat([blocks[place] for place in first])
        seen = model.get_image_features(some, grid[first], return_dict=True)
    features = seen.pooler_output
    if isinstance(features, Tensor):
        features = features[where.to(features.device)]
    else:
        features = [features[place] for place in where.tolist()]
    shared["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=features)}
    return shared


def in_both_orders(inputs: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the inputs of B pairs and, behind them, of the same pairs swapped: 2B prompts.

    Args:
        inputs: of B prompts with two pictures each and nothing else that differs by picture.

    Returns:
        None where pictures may have different numbers of tokens, as Qwen-VL's: encode them anew.
    """
    pixels, count = inputs.get("pixel_values"), len(inputs["input_ids"])
    text = {"input_ids", "attention_mask", "token_type_ids"}
    if pixels is None or len(pixels) != 2 * count or inputs.keys() - text != {"pixel_values"}:
        return None
    swapped = pixels.unflatten(0, (count, 2)).flip(1).flatten(0, 1)
    both = {name: value.repeat(2, 1) for name, value in inputs.items() if name in text}
    return {**both, "pixel_values": torch.cat([pixels, swapped])}


def answer_difference(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """Return how much the first answer is preferred: logit(yes) - logit(no) (section 3.2).

    Args:
        logits: behind the prompt, shape (B, vocabulary).
        tokens: first tokens of the two answers.

    Returns:
        natural-log odds that the answer begins with the first word, float32, shape (B,).
    """
    return (logits[:, tokens[0]] - logits[:, tokens[1]]).float()


def word_logprobs(logits: Tensor, tokenizer: Any, words: Sequence[str]) -> Tensor:
    """Return the log-probability that the answer begins with each word, however it is written.

    A word counts with small and capital initial, with and without a space before it; first tokens
    that two words have in common count for neither.

    Args:
        logits: behind the prompt, shape (B, vocabulary).
        tokenizer: of the model.
        words: possible answers, at least two.

    Returns:
        float32, shape (B, W).

    Raises:
        ValueError: see `vlm_hv.prompting.first_tokens`.
    """
    plain = first_tokens(tokenizer, words)
    spelled = [
        {token, *_spellings(tokenizer, word)} for token, word in zip(plain, words, strict=True)
    ]
    logprobs = logits.float().log_softmax(dim=-1)
    columns = []
    for number, tokens in enumerate(spelled):
        others = set().union(*(s for n, s in enumerate(spelled) if n != number))
        own = sorted(tokens - others | {plain[number]})
        columns.append(logprobs[:, own].logsumexp(dim=-1))
    return torch.stack(columns, dim=1)


def _spellings(tokenizer: Any, word: str) -> set[int]:
    ways = {word, word.capitalize(), f" {word}", f" {word.capitalize()}"}
    found = (tokenizer(way, add_special_tokens=False)["input_ids"] for way in ways)
    return {int(tokens[0]) for tokens in found if tokens}
