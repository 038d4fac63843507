from __future__ import annotations

import numpy as np
import pytest
import torch
from vlm_hv.prompting import (
    CHAT_QUESTION,
    PALIGEMMA_QUESTION,
    PairPrompt,
    append_answers,
    as_rgb,
    encode,
    first_tokens,
)
from vlm_hv.tiny import tiny_paligemma, tiny_qwen2_vl


@pytest.fixture(scope="module")
def paligemma():
    return tiny_paligemma(size=32, width=16, layers=1)


@pytest.fixture(scope="module")
def qwen():
    return tiny_qwen2_vl(width=16, layers=1)


def grey(count, seed=0, size=(64, 64)):
    return np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8)


def test_appended_answers_are_those_of_the_processors_own_suffix(paligemma):
    _, processor = paligemma
    left, right, same = grey(4, 0), grey(4, 1), [1, 0, 0, 1]
    inputs, labels = PairPrompt(processor, "paligemma").encode_answered(left, right, same)
    theirs = processor(
        text=["<image><image>answer en same writer?"] * 4,
        images=[[as_rgb(a), as_rgb(b)] for a, b in zip(left, right, strict=True)],
        suffix=["yes" if one else "no" for one in same],
        padding=True,
        return_tensors="pt",
    )
    their_labels = theirs.pop("labels")
    assert inputs.keys() == theirs.keys()
    for name, value in inputs.items():
        assert torch.equal(value, theirs[name]), name
    assert torch.equal(labels, their_labels[:, -labels.shape[1] :])
    assert (their_labels[:, : -labels.shape[1]] == -100).all()
    assert labels[:, -1].tolist() == [processor.tokenizer.eos_token_id] * 4


def test_pictures_reach_the_tensors_in_their_order(paligemma):
    prompt = PairPrompt(paligemma[1], "paligemma")
    left, right = grey(3, 0, (32, 32)), grey(3, 1, (32, 32))
    pixels = prompt.encode(left, right)["pixel_values"]
    expected = np.stack([left, right], axis=1).reshape(6, 1, 32, 32) / 127.5 - 1
    np.testing.assert_allclose(pixels, np.repeat(expected, 3, axis=1), atol=1e-5)


def test_chat_models_get_their_template_with_the_pictures_where_they_are_named(qwen):
    processor = qwen[1]
    turns = [
        ("system", ["You are an examiner."]),
        ("user", ["Known:", as_rgb(grey(1)[0]), "Questioned:", as_rgb(grey(1, 1)[0]), "Same?"]),
        ("assistant", ["They differ."]),
        ("user", ["So?"]),
    ]
    inputs = encode(processor, [turns])
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    pad = "<|image_pad|>"
    assert inputs["image_grid_thw"].shape == (2, 3)
    while pad * 2 in text:
        text = text.replace(pad * 2, pad)
    picture = f"<|vision_start|>{pad}<|vision_end|>"
    assert text == (
        "<|im_start|>system\nYou are an examiner.<|im_end|>\n"
        f"<|im_start|>user\nKnown:{picture}Questioned:{picture}Same?<|im_end|>\n"
        "<|im_start|>assistant\nThey differ.<|im_end|>\n"
        "<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_begin_token_of_the_template_is_not_doubled(qwen):
    processor = qwen[1]
    kept, processor.tokenizer.bos_token = processor.tokenizer.bos_token, "<|im_start|>"
    seen = []

    class Spy:
        tokenizer = processor.tokenizer
        chat_template = processor.chat_template
        apply_chat_template = processor.apply_chat_template

        def __call__(self, **given):
            seen.append(given["add_special_tokens"])
            return processor(**given)

    encode(Spy(), [[("user", ["Hello"])]])
    processor.tokenizer.bos_token = kept
    encode(Spy(), [[("user", ["Hello"])]])
    assert seen == [False, True]


def test_the_default_question_is_that_of_the_family(paligemma, qwen):
    assert PairPrompt(paligemma[1], "paligemma").question == PALIGEMMA_QUESTION
    assert PairPrompt(qwen[1], "qwen2_vl").question == CHAT_QUESTION
    assert PairPrompt(qwen[1], "qwen2_vl", "Same hand?").question == "Same hand?"


def test_shorter_answers_are_padded_behind_and_not_learnt(qwen):
    _, processor = qwen
    prompt = PairPrompt(processor, "qwen2_vl", "Same?", ("yes", "no, never"))
    inputs, labels = prompt.encode_answered(grey(2), grey(2, 1), [1, 0])
    end, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    long = processor.tokenizer("no, never")["input_ids"]
    assert labels[1].tolist() == [*long, end]
    assert labels[0].tolist() == [
        *(processor.tokenizer("yes")["input_ids"]),
        *(end, *[-100] * (len(long) - 1)),
    ]
    assert inputs["input_ids"][0, -1] == pad
    assert inputs["attention_mask"][0, -len(long) :].tolist() == [1, *[0] * (len(long) - 1)]
    assert {value.shape[1] for name, value in inputs.items() if "ids" in name} == {
        inputs["input_ids"].shape[1]
    }


def test_token_types_of_the_answers_are_as_told():
    inputs = {
        name: torch.zeros(1, 3, dtype=torch.int64) for name in ("input_ids", "token_type_ids")
    }
    inputs["attention_mask"] = torch.ones(1, 3, dtype=torch.int64)
    for kind in (0, 1):
        longer, _ = append_answers(inputs, [[7, 8]], pad=0, token_type=kind)
        assert longer["token_type_ids"].tolist() == [[0, 0, 0, kind, kind]]
        assert longer["input_ids"].tolist() == [[0, 0, 0, 7, 8]]


def test_concat_puts_both_on_one_canvas_with_a_bar(paligemma):
    left, right = np.full((1, 28, 28), 100, np.uint8), np.full((1, 28, 28), 200, np.uint8)
    inputs = PairPrompt(paligemma[1], "paligemma", layout="concat").encode(left, right)
    row = (inputs["pixel_values"][0, 0, 16] + 1) * 127.5  # 64 columns become 32
    assert row[:13].tolist() == pytest.approx([100] * 13, abs=3)
    assert (row[15:17] < 20).all()
    assert row[19:].tolist() == pytest.approx([200] * 13, abs=3)
    inputs = PairPrompt(paligemma[1], "paligemma", layout="concat").encode(grey(2), grey(2, 1))
    assert inputs["pixel_values"].shape[0] == 2
    assert (inputs["input_ids"] == paligemma[1].image_token_id).sum(1).tolist() == [16, 16]


@pytest.mark.parametrize("words", [("yes", "yesterday"), ("yes", "yes"), ("yes",), ("yes", "")])
def test_answers_must_begin_differently(words):
    def tokenizer(word, add_special_tokens):
        return {"input_ids": [ord(letter) for letter in word]}

    with pytest.raises(ValueError, match="answers"):
        first_tokens(tokenizer, words)
    assert first_tokens(tokenizer, ("yes", "no")) == [ord("y"), ord("n")]


def test_wrong_pictures_are_refused(paligemma):
    prompt = PairPrompt(paligemma[1], "paligemma")
    with pytest.raises(ValueError, match="equally many pictures, got 2 and 1"):
        prompt.encode(grey(2), grey(1))
    with pytest.raises(ValueError, match="equally many pictures, got 0 and 0"):
        prompt.encode([], [])
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W\) or \(H, W, 3\), got float64"):
        prompt.encode([np.zeros((4, 4))], [np.zeros((4, 4))])
    with pytest.raises(ValueError, match=r"got uint8 \(4, 4, 4\)"):
        as_rgb(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="layout must be one of two, concat, got 'three'"):
        PairPrompt(paligemma[1], "paligemma", layout="three")
