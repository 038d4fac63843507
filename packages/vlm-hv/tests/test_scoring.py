from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from vlm_hv.prompting import PairPrompt, first_tokens
from vlm_hv.scoring import (
    answer_difference,
    can_share_features,
    in_both_orders,
    last_logits,
    share_features,
    word_logprobs,
)
from vlm_hv.tiny import tiny_paligemma, tiny_qwen2_vl

FAMILIES = {
    "paligemma": lambda: tiny_paligemma(size=32, width=32),
    "qwen2_vl": lambda: tiny_qwen2_vl(width=32),
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request):
    model, processor = FAMILIES[request.param]()
    with torch.no_grad():  # random weights of the usual size say nearly the same of every picture
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model, PairPrompt(processor, request.param, "Same?")


def grey(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64), dtype=np.uint8)


def test_the_difference_is_that_of_the_logits_at_the_last_place_of_the_prompt(family):
    model, prompt = family
    inputs = prompt.encode(grey(5), grey(5, 1))
    with torch.no_grad():
        full = model(**inputs).logits[:, -1]
        ours = last_logits(model, inputs)
    yes, no = first_tokens(prompt.processor.tokenizer, ("yes", "no"))
    torch.testing.assert_close(ours[:, 0], full)
    difference = answer_difference(ours[:, 0], [yes, no])
    torch.testing.assert_close(difference, full[:, yes] - full[:, no])
    assert difference.std() > 1e-3  # pictures matter, or the tests below prove nothing


def test_scoring_is_what_generate_would_say(family):
    """Held to the two words, greedy generation answers with the one that scores higher."""
    model, prompt = family
    inputs = prompt.encode(grey(12), grey(12, 1))
    tokens = first_tokens(prompt.processor.tokenizer, ("yes", "no"))
    made = model.generate(
        **inputs,
        max_new_tokens=1,
        do_sample=False,
        prefix_allowed_tokens_fn=lambda *_: tokens,
    )[:, -1]
    with torch.no_grad():
        difference = answer_difference(last_logits(model, inputs)[:, 0], tokens)
    assert torch.equal(made == tokens[0], difference > 0)


def test_shared_features_give_the_same_logits_from_fewer_pictures(family, monkeypatch):
    model, prompt = family
    images = grey(3)
    left, right = images[[0, 1, 0, 2]], images[[1, 0, 2, 2]]
    pictures = [0, 1, 1, 0, 0, 2, 2, 2]
    inputs = prompt.encode(left, right)
    assert can_share_features(model)
    seen, look = [], model.get_image_features

    def count(pixels, *rest, **more):
        seen.append(len(rest[0]) if rest else len(pixels))
        return look(pixels, *rest, **more)

    monkeypatch.setattr(model, "get_image_features", count)
    with torch.no_grad():
        plain, shared = last_logits(model, inputs), last_logits(model, inputs, pictures=pictures)
    torch.testing.assert_close(shared, plain, rtol=1e-4, atol=1e-5)
    assert seen == [3]
    assert "pixel_values" in inputs  # what was given is left as it is


def test_both_orders_come_of_one_encoding_where_pictures_are_of_one_length(family):
    _, prompt = family
    left, right = grey(3), grey(3, 1)
    both = in_both_orders(prompt.encode(left, right))
    if prompt.model_type == "qwen2_vl":
        assert both is None
        return
    expected = prompt.encode(np.concatenate([left, right]), np.concatenate([right, left]))
    assert both.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in both.items())
    canvas = PairPrompt(prompt.processor, prompt.model_type, layout="concat")
    assert in_both_orders(canvas.encode(left, right)) is None


def test_gradients_flow_through_shared_features(family):
    model, prompt = family
    images = grey(2)
    inputs = prompt.encode(images, images[::-1])
    last_logits(model, inputs, pictures=[0, 1, 1, 0]).sum().backward()
    tower = [p for name, p in model.named_parameters() if "vis" in name]
    assert tower
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tower)
    model.zero_grad()


def test_an_unknown_architecture_computes_every_picture(family):
    model, prompt = family
    inputs = prompt.encode(grey(1), grey(1))
    kept, model.config.model_type = model.config.model_type, "something-else"
    try:
        assert share_features(model, inputs, [0, 0]) is inputs
    finally:
        model.config.model_type = kept


def test_several_last_positions_are_the_tail_of_the_whole(family):
    model, prompt = family
    inputs, labels = prompt.encode_answered(grey(2), grey(2, 1), [1, 0])
    with torch.no_grad():
        tail = last_logits(model, inputs, keep=labels.shape[1] + 1)
        torch.testing.assert_close(tail, model(**inputs).logits[:, -labels.shape[1] - 1 :])


class Letters:
    """A tokenizer whose first token is the first letter, a space being one of its own."""

    def __call__(self, word, add_special_tokens=False):
        return {"input_ids": [ord(letter) for letter in word]}


def test_a_word_counts_however_it_is_written():
    logits = torch.full((2, 128), -10.0)
    logits[0, ord("y")], logits[0, ord("Y")], logits[0, ord("n")] = 1.0, 2.0, 0.5
    logits[1, ord(" ")] = 9.0  # belongs to both, so to neither
    found = word_logprobs(logits, Letters(), ("yes", "no"))
    total = logits.exp().sum(dim=1)
    e = math.exp
    assert found[0, 0].item() == pytest.approx(math.log((e(1) + e(2)) / total[0]), abs=1e-5)
    assert found[0, 1].item() == pytest.approx(math.log((e(0.5) + e(-10)) / total[0]), abs=1e-5)
    assert (found[1].exp() < 1e-5).all()
    assert (found.exp().sum(1) <= 1).all()


def test_words_of_one_beginning_are_refused():
    with pytest.raises(ValueError, match="begin with the same token"):
        word_logprobs(torch.zeros(1, 128), Letters(), ("same", "similar"))
