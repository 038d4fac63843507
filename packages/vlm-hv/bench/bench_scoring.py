"""Logit scoring against generate(), batches against one by one, shared against repeated features.

``python -m pytest packages/vlm-hv/bench/bench_scoring.py -s --device cpu`` (or cuda). The CPU part
uses one thread and tiny models with random weights. Verdicts are tested to be equal; times are only
printed. How much sharing saves depends on how heavy the vision tower is beside the language model.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from papercommons.testing.timing import compare_speed
from vlm_hv.prompting import PairPrompt, first_tokens
from vlm_hv.scoring import answer_difference, last_logits
from vlm_hv.tiny import tiny_paligemma, tiny_qwen2_vl
from vlm_hv.verifier import VLMVerifier

PAIRS = 16
FAMILIES = {"paligemma": lambda: tiny_paligemma(layers=4), "qwen2_vl": lambda: tiny_qwen2_vl()}


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=sorted(FAMILIES))
def family(request, device):
    model, processor = FAMILIES[request.param]()
    return request.param, model.to(device), PairPrompt(processor, request.param)


def grey(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64), dtype=np.uint8)


def written(record, measured, size, speed):
    record(
        measured=measured,
        size=size,
        ours=f"{1e3 * speed.ours_s:.1f} ms",
        plain=f"{1e3 * speed.reference_s:.1f} ms",
        **speed.ratios(),
    )


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, PAIRS])
def test_scoring_against_generate(family, count, device, record):
    """Both get ready tensors; generate() makes the answer word and the end token."""
    name, model, prompt = family
    tokens = first_tokens(prompt.processor.tokenizer, prompt.answers)
    inputs = {k: v.to(device) for k, v in prompt.encode(grey(count), grey(count, 1)).items()}

    def ours():
        return answer_difference(last_logits(model, inputs)[:, 0], tokens) > 0

    def generated(**how):
        made = model.generate(**inputs, max_new_tokens=2, do_sample=False, **how)
        return made[:, -2] == tokens[0]

    held = generated(prefix_allowed_tokens_fn=lambda *_: tokens)
    assert torch.equal(ours(), held)
    speed = compare_speed(ours, generated, rounds=5)
    written(record, f"{name}: scoring / generate()", f"{count} pairs", speed)


@torch.inference_mode()
def test_a_batch_against_one_by_one(family, record):
    """From pictures to scores, the processor's work included."""
    name, model, prompt = family
    verifier = VLMVerifier(model, prompt.processor)
    left, right = grey(PAIRS), grey(PAIRS, 1)

    def ours():
        return verifier.score(left, right, batch_size=PAIRS)

    def one_by_one():
        return verifier.score(left, right, batch_size=1)

    np.testing.assert_allclose(ours(), one_by_one(), rtol=1e-3, atol=1e-4)
    speed = compare_speed(ours, one_by_one, rounds=5)
    written(record, f"{name}: batch / one by one", f"{PAIRS} pairs", speed)


@torch.inference_mode()
@pytest.mark.parametrize("text_layers", [4, 1], ids=lambda n: f"{n} text layers")
@pytest.mark.parametrize("pictures", [2 * PAIRS, 8], ids=lambda n: f"{n} pictures")
def test_both_orders_with_pictures_seen_once(pictures, text_layers, device, record):
    """From pictures to scores: each processed and seen once, against once per place and order.

    The vision tower has 4 layers. Large models lie on either side: PaliGemma's language model costs
    more than its vision tower, SmolVLM's less.
    """
    model, processor = tiny_paligemma(layers=4)
    layers = model.model.language_model.layers
    model.model.language_model.layers = layers[:text_layers]
    verifier = VLMVerifier(model.to(device), processor)
    images = grey(pictures)
    left, right = (images[np.arange(PAIRS) * 2 % pictures + k] for k in (0, 1))

    def ours():
        return verifier.score(left, right, swap=True)

    def apart():
        orders = [(left, right), (right, left)]
        encoded = (verifier.prompt.encode(*order) for order in orders)
        return np.stack([verifier(inputs).double().cpu().numpy() for inputs in encoded])

    np.testing.assert_allclose(ours(), apart(), rtol=1e-3, atol=1e-4)
    speed = compare_speed(ours, apart, rounds=5)
    size = f"{PAIRS} pairs of {pictures} pictures, {text_layers} text layers"
    written(record, "paligemma: both orders, seen once / each time", size, speed)
