"""What is said to a model and what comes back, whatever runs the model; needs no torch.

Pictures are parts of their own, beside the text and never inside it, so no backend can paste them
into a prompt as characters.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One picture, as the exact bytes that are sent.

    Attributes:
        png: a PNG file.
        name: what it is called in records; it is not sent.

    Raises:
        ValueError: the bytes are no PNG.
    """

    png: bytes
    name: str

    def __post_init__(self) -> None:
        if not self.png.startswith(PNG_MAGIC):
            raise ValueError(f"png must hold a PNG file, got {self.png[:8]!r} for {self.name!r}")

    def __repr__(self) -> str:
        return f"Picture({self.name!r}, {len(self.png):,} bytes)"

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal hash of the bytes."""
        return hashlib.sha256(self.png).hexdigest()


Part = str | Picture


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        parts: texts and pictures, in the order in which the model gets them.
    """

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The texts, a line each."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures, in order."""
        return tuple(part for part in self.parts if isinstance(part, Picture))


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        messages: the conversation so far; the last is the user's.
        max_tokens: longest answer, >= 1.
        temperature: >= 0; 0 is greedy.
        seed: of the sampling, where the model takes one.
        schema: JSON schema the answer must follow, where the model can be held to one.
        choices: words whose probability as the first word of the answer is wanted
            (`Answer.choice_logprobs`), e.g. ``("yes", "no")``.

    Raises:
        ValueError: no message, or a number out of range.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    seed: int | None
    schema: dict[str, Any] | None = None
    choices: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].role != "user":
            raise ValueError("messages must end with one of the user's")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be >= 1, got {self.max_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be finite and >= 0, got {self.temperature}")

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures of the conversation, in order."""
        return tuple(picture for message in self.messages for picture in message.pictures)

    def digest(self) -> str:
        """Return the hexadecimal SHA-256 of everything that is asked; names do not count."""
        messages = [
            [m.role, [p if isinstance(p, str) else {"png": p.sha256} for p in m.parts]]
            for m in self.messages
        ]
        asked = {"messages": messages, "max_tokens": self.max_tokens, "seed": self.seed}
        asked |= {"temperature": float(self.temperature), "schema": self.schema}
        asked |= {"choices": self.choices}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: the answer; may be empty.
        prompt_tokens: tokens of the question with its pictures, None if not told.
        completion_tokens: tokens of the answer, None if not told.
        seconds: from question to answer.
        finish_reason: stop, length or as the model's server calls it, None if not told.
        model: id of the model that answered, as it calls itself.
        choice_logprobs: natural-log probability of each of `Request.choices` at the first token of
            the answer; -inf where it is not among the tokens told. None where not asked for or
            where none is known.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    finish_reason: str | None
    model: str
    choice_logprobs: dict[str, float] | None = None


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    Attributes:
        reason: one line; never holds a key.
        retryable: whether the same question may succeed later.
    """

    reason: str
    retryable: bool


@runtime_checkable
class Backend(Protocol):
    """Whatever runs a model.

    Attributes:
        name: of the backend, ``openai`` or ``transformers``.
        model: id or folder of the model.
    """

    name: str
    model: str

    def answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Return one answer or failure per request, in their order.

        Args:
            requests: as one batch on a local model, side by side at an endpoint.
        """
        ...
