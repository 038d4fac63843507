from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from papercommons.errors import DataError
from papercommons.metrics.calibration import Calibration
from PIL import Image
from vlm_hv.conversation import Answer, Backend, Failure, Message, Picture, Request
from vlm_hv.loading import Loaded
from vlm_hv.local import LocalModel
from vlm_hv.tiny import tiny_paligemma, tiny_qwen2_vl
from vlm_hv.verifier import VLMVerifier


def picture(seed, size=(64, 64)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), f"{seed}.png")


def request(*pictures, words="Same?", **how):
    shown = [part for one in pictures for part in ("Sample:", one)]
    options = {"max_tokens": 6, "temperature": 0.0, "seed": None} | how
    return Request((Message("user", (*shown, words)),), **options)


def strong(model):
    """Random weights of the usual size say nearly the same of every picture."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


@pytest.fixture(scope="module")
def qwen():
    model, processor = tiny_qwen2_vl(width=32)
    return Loaded(strong(model), processor, "tiny/qwen")


@pytest.fixture(scope="module")
def paligemma():
    model, processor = tiny_paligemma(size=32, width=32)
    return Loaded(strong(model), processor, "tiny/paligemma")


def test_it_is_a_backend(qwen):
    model = LocalModel(qwen)
    assert isinstance(model, Backend)
    assert (model.name, model.model) == ("transformers", "tiny/qwen")
    assert model.answer([]) == []


@pytest.mark.parametrize("family", ["qwen", "paligemma"])
def test_a_batch_answers_as_one_by_one_in_the_order_asked(family, request_fixture):
    """Different lengths and pictures in one batch: padding changes nothing."""
    loaded = request_fixture(family)
    requests = [
        request(picture(0), picture(1)),
        request(picture(2), picture(3), words="Did the same person write both samples?"),
        request(picture(4), picture(5), max_tokens=3),
        request(picture(1), picture(0)),
    ]
    alone = [LocalModel(loaded).answer([one])[0] for one in requests]
    together = LocalModel(loaded, batch_size=8).answer(requests)
    turned = LocalModel(loaded, batch_size=3).answer(requests[::-1])[::-1]
    said = [(a.text, a.prompt_tokens, a.completion_tokens, a.finish_reason) for a in alone]
    assert said == [
        (a.text, a.prompt_tokens, a.completion_tokens, a.finish_reason) for a in together
    ]
    assert [a.text for a in turned] == [a.text for a in alone]
    assert family == "paligemma" or len({a.text for a in alone}) > 1
    assert {a.model for a in together} == {loaded.source}
    assert all(a.seconds > 0 and 0 < a.completion_tokens <= 6 for a in alone)


@pytest.fixture
def request_fixture(request):
    return request.getfixturevalue


def test_the_answer_is_greedy_generation(qwen):
    one = request(picture(0), picture(1), max_tokens=5)
    (answer,) = LocalModel(qwen).answer([one])
    processor = qwen.processor
    parts = [{"type": "text", "text": "Sample:"}, {"type": "image"}] * 2
    chat = [{"role": "user", "content": [*parts, {"type": "text", "text": "Same?"}]}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    shown = [Image.open(io.BytesIO(p.png)) for p in one.pictures]
    inputs = processor(text=[text], images=[shown], return_tensors="pt")
    made = qwen.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    made = made[0, inputs["input_ids"].shape[1] :]
    assert answer.text == processor.tokenizer.decode(made, skip_special_tokens=True).strip()
    assert answer.prompt_tokens == inputs["input_ids"].shape[1]


def test_an_answer_stops_at_the_end_token(qwen, monkeypatch):
    tokenizer = qwen.processor.tokenizer
    word, end = tokenizer("yes")["input_ids"][0], tokenizer.eos_token_id

    def generate(input_ids, **_):
        tail = torch.tensor([[word, end, word, word], [word, word, word, word]])
        return torch.cat([input_ids, tail], dim=1)

    monkeypatch.setattr(qwen.model, "generate", generate)
    first, second = LocalModel(qwen).answer([request(picture(0)), request(picture(1))])
    assert (first.text, first.completion_tokens, first.finish_reason) == ("yes", 2, "stop")
    assert (second.text, second.completion_tokens) == ("yesyesyesyes", 4)
    assert second.finish_reason == "length"


@pytest.mark.parametrize("family", ["qwen", "paligemma"])
def test_choices_are_scored_without_generating(family, request_fixture, monkeypatch):
    loaded = request_fixture(family)
    monkeypatch.setattr(loaded.model, "generate", None)
    pairs = [(0, 1), (1, 0), (2, 3), (3, 2)]
    requests = [request(*map(picture, pair), choices=("yes", "no")) for pair in pairs]
    answers = LocalModel(loaded).answer(requests)
    for one, answer in zip(requests, answers, strict=True):
        assert list(answer.choice_logprobs) == ["yes", "no"]
        assert sum(map(math.exp, answer.choice_logprobs.values())) <= 1
        assert answer.text == max(answer.choice_logprobs, key=answer.choice_logprobs.get)
        (alone,) = LocalModel(loaded).answer([one])
        assert alone.choice_logprobs == pytest.approx(answer.choice_logprobs, abs=1e-3)
    assert len({answer.choice_logprobs["yes"] for answer in answers}) == 4


def test_a_seeded_sample_does_not_depend_on_its_neighbours(qwen):
    def ask(*seeds):
        warm = {"temperature": 1.0, "max_tokens": 8}
        requests = [request(picture(0), picture(1), seed=seed, **warm) for seed in seeds]
        return [answer.text for answer in LocalModel(qwen).answer(requests)]

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = ask(1, 2)
    assert torch.equal(torch.rand(1), expected)
    assert ask(2, 1, 1) == [first[1], first[0], first[0]]
    assert first[0] != first[1]


def test_what_a_model_cannot_be_asked_is_a_failure_of_that_request_alone(paligemma):
    answers = LocalModel(paligemma).answer(
        [request(words="No picture?"), request(picture(0), picture(1))]
    )
    assert isinstance(answers[0], Failure)
    assert not answers[0].retryable
    assert "paligemma cannot be asked this: `images` are expected" in answers[0].reason
    assert isinstance(answers[1], Answer)


def test_choices_that_begin_alike_are_a_failure(qwen):
    (answer,) = LocalModel(qwen).answer([request(picture(0), choices=("yes", "yes"))])
    assert "begin with the same token" in answer.reason


def test_two_pictures_for_a_one_picture_model_are_a_failure(qwen, monkeypatch):
    monkeypatch.setattr("vlm_hv.local.ONE_PICTURE", {"qwen2_vl"})
    two, one = LocalModel(qwen).answer([request(picture(0), picture(1)), request(picture(0))])
    assert "qwen2_vl takes one picture per prompt, got 2; use --layout concat" in two.reason
    assert isinstance(one, Answer)


def test_where_memory_runs_out_the_batch_is_halved(qwen, monkeypatch):
    sizes, generate = [], qwen.model.generate

    def little_memory(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**inputs)

    monkeypatch.setattr(qwen.model, "generate", little_memory)
    model = LocalModel(qwen, batch_size=8)
    answers = model.answer([request(picture(seed)) for seed in range(5)])
    assert all(isinstance(answer, Answer) for answer in answers)
    assert sizes == [5, 2, 2, 1]
    assert model.batch_size == 2

    def no_memory(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(qwen.model, "generate", no_memory)
    (answer,) = LocalModel(qwen).answer([request(picture(0))])
    assert answer == Failure("out of memory with one request at a time", retryable=False)


@pytest.mark.parametrize("calibration", [None, Calibration(0.5, -0.25)])
def test_a_saved_verifier_is_asked_what_it_was_trained_on(calibration, tmp_path):
    verifier = VLMVerifier(
        *tiny_paligemma(size=32, width=32),
        question="Same hand?",
        answers=("no", "yes"),
        calibration=calibration,
    )
    strong(verifier.model)
    verifier.save_pretrained(tmp_path / "export")
    model = LocalModel(tmp_path, device="cpu")
    assert model.trained["question"] == "Same hand?"
    pairs = [(picture(0), picture(1)), (picture(1), picture(2))]
    answers = model.answer([request(*pair, choices=("same", "other")) for pair in pairs])
    left, right = (
        [Image.open(io.BytesIO(p.png)) for p in side] for side in zip(*pairs, strict=True)
    )
    odds = verifier.score(left, right)
    if calibration is not None:
        odds = calibration.llr(odds)
    for answer, value in zip(answers, odds, strict=True):
        assert list(answer.choice_logprobs) == ["same", "other"]
        found = [math.exp(logprob) for logprob in answer.choice_logprobs.values()]
        assert found[0] == pytest.approx(1 / (1 + math.exp(-value)), rel=1e-3)
        assert sum(found) == pytest.approx(1)
        assert answer.text == ("same" if value > 0 else "other")
    assert LocalModel(Loaded(verifier.model, verifier.prompt.processor, "x/y")).trained is None


def test_bad_options_are_refused(qwen):
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        LocalModel(qwen, batch_size=0)
    with pytest.raises(DataError, match="no such folder"):
        LocalModel("nowhere")
