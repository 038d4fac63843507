"""The chat-completions format of OpenAI-compatible servers: what is sent and what comes back.

Pictures are always image parts (`data:image/png;base64,...` URLs), never text.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, Literal

from papercommons.errors import one_line

from vlm_hv.conversation import Answer, Message, Part, Request

Structured = Literal["schema", "object", "none"]
TOP_LOGPROBS = 20
_MOST_TOKENS = 1 << 40  # a server may state what it likes


def request_body(
    request: Request,
    model: str,
    *,
    structured: Structured = "schema",
    token_field: str = "max_tokens",
) -> dict[str, Any]:
    """Return the JSON body that asks `request`.

    Args:
        request: what is asked.
        model: id at the server.
        structured: how the server is told of a schema: as one, only that JSON is wanted, not at
            all.
        token_field: name of the limit; some models want ``max_completion_tokens``.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        token_field: request.max_tokens,
        "temperature": request.temperature,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.schema is not None and structured == "schema":
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.schema is not None and structured == "object":
        body["response_format"] = {"type": "json_object"}
    if request.choices is not None:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    return body


def _message(message: Message) -> dict[str, Any]:
    if not message.pictures:
        return {"role": message.role, "content": message.text}
    return {"role": message.role, "content": [_part(part) for part in message.parts]}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    content = base64.b64encode(part.png).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}"}}


def read_answer(payload: Any, request: Request, *, model: str, seconds: float) -> Answer:
    """Return what a server's JSON says.

    Args:
        payload: decoded JSON.
        request: what was asked.
        model: id that was asked for; the answer's own counts if it has one.
        seconds: from question to answer.

    Raises:
        ValueError: the JSON is not a chat completion with a choice.
    """
    choices = payload.get("choices") if isinstance(payload, Mapping) else None
    if not isinstance(choices, list):
        raise ValueError(f"no chat completion: {one_line(repr(payload))[:120]}")
    choice = choices[0] if choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        raise ValueError("a chat completion without choices")
    usage = payload.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    finish, named = choice.get("finish_reason"), payload.get("model")
    return Answer(
        text=_text(message),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        seconds=seconds,
        finish_reason=finish if isinstance(finish, str) else None,
        model=named if isinstance(named, str) and named else model,
        choice_logprobs=_choices(choice.get("logprobs"), request.choices),
    )


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):  # some servers answer in parts, too
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "".join(text for text in texts if isinstance(text, str))
    if not content:
        content = message.get("refusal")
    if not isinstance(content, str):
        return ""
    return content.encode(errors="replace").decode()  # half a character cannot be written down


def _count(value: Any) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if good else None


def _choices(logprobs: Any, choices: tuple[str, ...] | None) -> dict[str, float] | None:
    """Return the log-probability of each choice: all spellings of one added up."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if choices is None or not isinstance(content, list) or not content:
        return None
    first = content[0] if isinstance(content[0], Mapping) else {}
    told = first.get("top_logprobs")
    entries = [*(told if isinstance(told, list) else []), first]
    by_token = {
        entry["token"]: float(max(entry["logprob"], -1e9))
        for entry in entries
        if isinstance(entry, Mapping)
        and isinstance(entry.get("token"), str)
        and isinstance(entry.get("logprob"), int | float)
        and entry["logprob"] <= 0
    }
    sums = dict.fromkeys(choices, 0.0)
    words = {choice.lower(): choice for choice in choices}
    for token, logprob in by_token.items():
        word = words.get(token.strip(" \t\n\"'*_.,:\u2581\u0120").lower())
        if word is not None:
            sums[word] += math.exp(logprob)
    return {word: math.log(p) if p > 0 else -math.inf for word, p in sums.items()}
