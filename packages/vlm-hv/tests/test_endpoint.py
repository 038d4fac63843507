from __future__ import annotations

import gzip
import io
import json
import math
import re
import time
from email.utils import formatdate
from typing import Any

import pytest
from papercommons.errors import DataError
from PIL import Image
from vlm_hv.chat_completions import read_answer
from vlm_hv.conversation import Answer, Backend, Failure, Message, Request
from vlm_hv.endpoint import Endpoint, check_address, is_loopback
from vlm_hv.images import encode

pytest.importorskip("httpx", reason="needs httpx (vlm-hv[api])")

KEY = "sk-very-secret-0123456789"


def request(number: int = 0, **more: Any) -> Request:
    known = encode(Image.new("RGB", (30, 20), (number, 1, 2)), "k")
    questioned = encode(Image.new("RGB", (20, 30), (3, 4, 5)), "q")
    parts = ("Compare.", "Known sample:", known, "Questioned sample:", questioned)
    messages = (Message("system", ("You are an examiner.",)), Message("user", parts))
    return Request(messages, more.pop("max_tokens", 64), 0.0, 7, **more)


@pytest.fixture
def endpoint(server: Any) -> Any:
    made = []

    def make(**more: Any) -> Endpoint:
        defaults = {"base_url": server.url, "backoff": 0.01, "retries": 2, "timeout": 5.0}
        made.append(Endpoint("tiny", **(defaults | more)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_exact_request(server: Any, endpoint: Any) -> None:
    """Pictures are image parts with the very bytes, and no text holds them."""
    asked = request()
    (answer,) = endpoint().answer([asked])
    (body,) = server.requests
    assert body["path"] == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == (
        "tiny",
        0.0,
        7,
        64,
    )
    assert server.sent_pictures(body) == [picture.png for picture in asked.pictures]
    sizes = [Image.open(io.BytesIO(png)).size for png in server.sent_pictures(body)]
    assert sizes == [(30, 20), (20, 30)]
    kinds = [part["type"] for part in body["messages"][1]["content"]]
    assert kinds == ["text", "text", "image_url", "text", "image_url"]
    assert body["messages"][0] == {"role": "system", "content": "You are an examiner."}
    for text in server.sent_texts(body):
        assert not re.search(r"base64|data:|iVBOR|[A-Za-z0-9+/]{40,}", text)
    assert answer.text == "Yes"
    assert (answer.prompt_tokens, answer.completion_tokens, answer.model) == (700, 20, "tiny-2026")
    assert not {"response_format", "logprobs"} & body.keys()


def test_is_a_backend(endpoint: Any) -> None:
    assert isinstance(endpoint(), Backend)


def test_answers_come_in_the_order_of_the_requests(server: Any, endpoint: Any) -> None:
    server.reply = lambda body: str(
        Image.open(io.BytesIO(server.sent_pictures(body)[0])).getpixel((0, 0))
    )
    answers = endpoint(concurrency=8).answer([request(number) for number in range(12)])
    assert [answer.text for answer in answers] == [f"({number}, 1, 2)" for number in range(12)]


def test_schema_and_token_field(server: Any, endpoint: Any) -> None:
    schema = {"type": "object"}
    endpoint().answer([request(schema=schema)])
    endpoint(structured="object").answer([request(schema=schema)])
    endpoint(structured="none", token_field="max_completion_tokens").answer(
        [request(schema=schema)]
    )
    one, two, three = server.requests
    assert one["response_format"]["json_schema"]["schema"] == schema
    assert two["response_format"] == {"type": "json_object"}
    assert "response_format" not in three
    assert three["max_completion_tokens"] == 64
    assert "max_tokens" not in three


def test_choice_probabilities_add_up_spellings(server: Any, endpoint: Any) -> None:
    server.logprobs = {"Yes": math.log(0.5), " yes": math.log(0.2), "No": math.log(0.1), "x": -3.0}
    (answer,) = endpoint().answer([request(choices=("yes", "no"))])
    assert server.requests[0]["logprobs"] is True
    assert answer.choice_logprobs == pytest.approx({"yes": math.log(0.7), "no": math.log(0.1)})
    server.logprobs = None
    assert endpoint().answer([request(choices=("yes", "no"))])[0].choice_logprobs is None


OK: dict[str, str] = {}


@pytest.mark.parametrize(
    "trouble",
    [
        [(500, OK, b"oops")],
        [(503, OK, b""), (502, OK, b"<html>bad gateway</html>")],
        [(200, OK, b"{not json")],
        [(200, OK, b'{"choices": []}')],
        [(200, OK, b'{"choices": [{"message": null}]}')],
        [(200, OK, b"[]")],
        [(429, {"retry-after": "0"}, b"{}")],
    ],
)
def test_trouble_that_passes(server: Any, endpoint: Any, trouble: list[Any]) -> None:
    server.script = list(trouble)
    (answer,) = endpoint().answer([request()])
    assert isinstance(answer, Answer)
    assert len(server.requests) == len(trouble) + 1


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ((500, OK, b'{"error": {"message": "boom"}}'), "500: boom"),
        ((200, OK, b"{not json"), "malformed answer"),
        ((200, OK, b'{"choices": []}'), "without choices"),
        ((429, OK, b'{"error": {"message": "slow"}}'), "429: slow"),
    ],
)
def test_trouble_that_stays_is_a_retryable_failure(
    server: Any, endpoint: Any, trouble: Any, said: str
) -> None:
    server.script = [trouble] * 3
    (failure,) = endpoint().answer([request()])
    assert isinstance(failure, Failure)
    assert failure.retryable
    assert said in failure.reason
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (401, b'{"error": {"message": "bad key"}}', "the key was refused (bad key)"),
        (404, b'{"error": {"message": "no model tiny"}}', "--base-url ends in /v1"),
        (
            400,
            b'{"error": {"message": "image input is not supported"}}',
            "vision-language",
        ),
        (422, b'{"detail": "Unexpected fields: response_format"}', "--structured none"),
        (400, b'{"error": {"message": "logprobs are not supported"}}', "--mode direct"),
        (400, b'{"error": "use max_completion_tokens"}', "--token-field"),
        (429, b'{"error": {"code": "insufficient_quota"}}', "insufficient_quota"),
        (302, b"", "redirects"),
    ],
)
def test_refusals_are_final_and_explained(
    server: Any, endpoint: Any, status: int, content: bytes, said: str
) -> None:
    server.script = [(status, {"location": "http://127.0.0.1:9/"}, content)]
    (failure,) = endpoint().answer([request()])
    assert isinstance(failure, Failure)
    assert not failure.retryable
    assert failure.reason.startswith(f"{status}: ")
    assert said in failure.reason
    assert len(server.requests) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept(server: Any, endpoint: Any, form: str) -> None:
    after = "0.3" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server.script = [(429, {"retry-after": after}, b"{}")]
    endpoint(backoff=0).answer([request()])
    first, second = server.times
    assert second - first >= (0.29 if form == "seconds" else 0.9)


def test_all_wait_where_the_server_asks_one_to(server: Any, endpoint: Any) -> None:
    server.script = [(429, {"retry-after": "0.4"}, b"{}")]
    backend = endpoint(concurrency=1, backoff=0)
    backend.answer([request(0), request(1)])
    first, *rest = server.times
    assert min(rest) - first >= 0.39


def test_a_long_wait_is_not_sat_out(server: Any, endpoint: Any) -> None:
    server.script = [(429, {"retry-after": "86400"}, b'{"error": "daily limit"}')]
    (failure,) = endpoint().answer([request()])
    assert failure == Failure("429: daily limit", retryable=True)


def test_timeout(server: Any, endpoint: Any) -> None:
    server.script = [(200, OK, None)]
    assert isinstance(endpoint(timeout=0.3).answer([request()])[0], Answer)
    server.script = [(200, OK, None)]
    (failure,) = endpoint(timeout=0.3, retries=0).answer([request()])
    assert isinstance(failure, Failure)
    assert "no answer within" in failure.reason


def test_nobody_listens() -> None:
    with Endpoint("tiny", base_url="http://127.0.0.1:9/v1", retries=0) as backend:
        (failure,) = backend.answer([request()])
    assert isinstance(failure, Failure)
    assert "http://127.0.0.1:9/v1 cannot be reached" in failure.reason


def test_rate_limit(server: Any, endpoint: Any) -> None:
    backend, started = endpoint(rpm=600, concurrency=4), time.monotonic()
    backend.answer([request(number) for number in range(5)])
    assert time.monotonic() - started >= 0.4


def test_concurrency(server: Any, endpoint: Any) -> None:
    server.delay = 0.1
    endpoint(concurrency=3).answer([request(number) for number in range(9)])
    assert server.peak == 3


def test_key_is_sent_and_never_shown(
    server: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    backend = endpoint(api_key_env="MY_KEY")
    server.script = [(401, OK, json.dumps({"error": {"message": f"{KEY} is wrong"}}).encode())]
    (failure,) = backend.answer([request()])
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in failure.reason + repr(backend) + json.dumps(server.requests)
    assert "*** is wrong" in failure.reason


def test_no_key_goes_to_this_machine_unasked(
    server: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint().answer([request()])
    assert "authorization" not in {name.lower() for name in server.headers[0]}


@pytest.mark.parametrize(("value", "said"), [("", "is not set"), ("a b\u00e9", "holds no key")])
def test_missing_or_broken_key_is_named_not_shown(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(DataError, match=f"OPENAI_API_KEY {said}") as caught:
        Endpoint("gpt", yes_upload=True)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "allowed", "said"),
    [
        ("https://api.openai.com/v1", {}, "--yes-upload"),
        ("http://192.168.1.5/v1", {}, "--yes-upload"),
        ("https://localhost.example.org/v1", {}, "--yes-upload"),
        ("http://192.168.1.5/v1", {"yes_upload": True}, "--allow-insecure"),
        ("http://127.0.0.1.example.org/v1", {"allow_insecure": True}, "--yes-upload"),
        ("https://user:secret@example.org/v1", {"yes_upload": True}, "--api-key-env"),
        ("https://example.org/v1?key=secret", {"yes_upload": True}, "--api-key-env"),
        ("file:///etc/passwd", {"yes_upload": True}, "must begin with http"),
        ("example.org/v1", {"yes_upload": True}, "must begin with http"),
        ("http://[::1/v1", {}, "no address"),
        ("http://127.0.0.1:99999/v1", {}, "no address"),
    ],
)
def test_addresses_that_need_leave_or_are_none(
    url: str, allowed: dict[str, bool], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        check_address(url, **({"yes_upload": False, "allow_insecure": False} | allowed))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1", "http://127.0.0.1/v1", "http://[::1]:8000/v1"]
)
def test_this_machine_needs_no_leave(url: str) -> None:
    assert is_loopback(url)
    check_address(url, yes_upload=False, allow_insecure=False)


def test_a_proxy_does_not_get_what_stays_here(
    server: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert isinstance(endpoint().answer([request()])[0], Answer)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"retries": -1}, {"rpm": 0}, {"timeout": 0}])
def test_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="--concurrency"):
        Endpoint("tiny", base_url="http://127.0.0.1/v1", **wrong)


def test_answers_in_parts_refusals_and_odd_counts() -> None:
    def read(message: Any, usage: Any = None) -> Answer:
        payload = {"choices": [{"message": message}], "usage": usage}
        return read_answer(payload, request(), model="m", seconds=1.0)

    assert read({"content": [{"type": "text", "text": "Y"}, {"text": "es"}]}).text == "Yes"
    assert read({"content": None, "refusal": "I cannot."}).text == "I cannot."
    assert read({"content": 3}).text == ""
    odd = read({"content": "x"}, {"prompt_tokens": -1, "completion_tokens": "9"})
    assert (odd.prompt_tokens, odd.completion_tokens, odd.model) == (None, None, "m")


def completion(text: str = "Yes", **more: Any) -> bytes:
    choice = {"message": {"content": text}} | more.pop("choice", {})
    return json.dumps({"choices": [choice]} | more).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (completion("Yes \ud800"), "Yes ?"),
        (completion(usage={"prompt_tokens": 10**400, "completion_tokens": 10**400}), "Yes"),
        (
            completion(choice={"logprobs": {"content": [{"token": "a", "logprob": -(10**400)}]}}),
            "Yes",
        ),
    ],
)
def test_answers_that_cannot_be_written_or_counted(
    server: Any, endpoint: Any, content: bytes, said: str
) -> None:
    server.script = [(200, {}, content)]
    (answer,) = endpoint().answer([request(choices=("Yes", "No"))])
    assert isinstance(answer, Answer)
    assert answer.text == said
    assert (answer.prompt_tokens, answer.completion_tokens) == (None, None)


def test_packed_answers_are_not_unpacked(server: Any, endpoint: Any) -> None:
    bomb = gzip.compress(gzip.compress(b" " * 50_000_000))
    server.script = [(200, {"content-encoding": "gzip, gzip"}, bomb)]
    (answer,) = endpoint(retries=0).answer([request()])
    assert isinstance(answer, Failure)
    assert "malformed answer" in answer.reason
    assert server.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "when", ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 99 Jan 2001 99:00:00 GMT"]
)
def test_a_date_that_is_none_is_no_wait(server: Any, endpoint: Any, when: str) -> None:
    server.script = [(429, {"retry-after": when}, b"later")]
    assert isinstance(endpoint().answer([request()])[0], Answer)


def test_an_answer_that_drips_is_a_timeout(server: Any, endpoint: Any) -> None:
    server.drip = 0.1
    started = time.monotonic()
    (answer,) = endpoint(retries=0, timeout=0.5).answer([request()])
    assert isinstance(answer, Failure)
    assert "no answer within" in answer.reason
    assert time.monotonic() - started < 30
