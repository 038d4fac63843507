"""The backend `openai`: any server with OpenAI's chat completions, asked over HTTP.

Case images are confidential and keys are secret: images leave this machine only where that was
allowed, keys come from the environment alone, and no message, record or file holds one.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import os
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from papercommons.errors import DataError, missing_library, one_line, reason

from vlm_hv.chat_completions import Structured, read_answer, request_body
from vlm_hv.conversation import Answer, Failure, Request

if TYPE_CHECKING:
    import httpx

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
RETRIED = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_LARGEST = 16_000_000  # bytes of an answer
_LONGEST_WAIT = 300.0  # seconds that a server may ask for


def is_loopback(base_url: str) -> bool:
    """Return whether `base_url` is on this machine: localhost, 127.0.0.0/8 or ::1."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(base_url: str, *, yes_upload: bool, allow_insecure: bool) -> None:
    """Check that images may be sent to `base_url`, before anything is read.

    Args:
        base_url: of the server, up to and with /v1.
        yes_upload: the user allows that images leave this machine.
        allow_insecure: the user allows http without encryption to another machine.

    Raises:
        ValueError: no such address, it holds a name or key, or something is not allowed.
    """
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"--base-url is no address ({reason(error)})") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "--base-url must hold no user name, key or query; keys come from --api-key-env"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(
            f"--base-url must begin with http:// or https://, got {one_line(base_url)!r}"
        )
    if is_loopback(base_url):
        return
    if not yes_upload:
        raise ValueError(
            f"the images would be sent to {host}: pass --yes-upload if they may leave this machine "
            "(case material often may not), or run a model here"
        )
    if parts.scheme == "http" and not allow_insecure:
        raise ValueError(
            f"{base_url} sends images and key unencrypted: use https, or pass --allow-insecure"
        )


def read_key(variable: str | None, base_url: str) -> str | None:
    """Return the key from the environment; None for a server on this machine without one.

    Args:
        variable: its name; None is OPENAI_API_KEY for another machine, and no key for this one.
        base_url: of the server.

    Raises:
        ValueError: `variable` is no name: it may be the key.
        DataError: it is not set, or cannot be a key; the message never shows it.
    """
    name = variable or (None if is_loopback(base_url) else OPENAI_KEY)
    if name is None:
        return None
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        raise ValueError(
            "--api-key-env takes the name of an environment variable in capitals, such as "
            f"{OPENAI_KEY}, and never the key itself"
        )
    key = os.environ.get(name, "").strip()
    if not key:
        raise DataError(
            f"no key: the environment variable {name} is not set; export it, or name another with "
            "--api-key-env"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise DataError(f"the environment variable {name} holds no key: it has blanks or the like")
    return key


class _Pace:
    """Lets a limited number of requests start per minute, evenly spaced."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 0.0 if per_minute is None else 60.0 / per_minute
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        if start > now:
            time.sleep(start - now)

    def hold(self, seconds: float) -> None:
        """Let nobody start for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class Endpoint:
    """A model at an OpenAI-compatible endpoint; a `vlm_hv.conversation.Backend`.

    Args:
        model: its id at the server.
        base_url: of the server, up to and with /v1.
        api_key_env: environment variable that holds the key, see `read_key`.
        concurrency: most requests side by side, >= 1.
        rpm: most requests that start per minute; None is no limit.
        timeout: seconds without a sign of the server, > 0.
        retries: how often a request is repeated after 429, 5xx, a timeout or a malformed answer.
        backoff: seconds before the first repetition, doubled each time, drawn at random up to that;
            a Retry-After of the server's counts instead.
        structured: how a schema is sent, see `vlm_hv.chat_completions.request_body`.
        token_field: name of the limit of tokens in the request.
        yes_upload: images may leave this machine.
        allow_insecure: they may do so unencrypted.

    Raises:
        ValueError: see `check_address`, or a number out of range.
        DataError: httpx is not installed, or see `read_key`.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        *,
        base_url: str = OPENAI_URL,
        api_key_env: str | None = None,
        concurrency: int = 4,
        rpm: float | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        backoff: float = 1.0,
        structured: Structured = "schema",
        token_field: str = "max_tokens",
        yes_upload: bool = False,
        allow_insecure: bool = False,
    ) -> None:
        if not model:
            raise ValueError("--model must name the model at the endpoint")
        if concurrency < 1 or retries < 0 or timeout <= 0 or (rpm is not None and rpm <= 0):
            raise ValueError(
                "--concurrency must be >= 1, --retries >= 0, --timeout and --rpm > 0, "
                f"got {concurrency}, {retries}, {timeout} and {rpm}"
            )
        check_address(base_url, yes_upload=yes_upload, allow_insecure=allow_insecure)
        self._key = read_key(api_key_env, base_url)
        self.model, self.base_url = model, base_url.rstrip("/")
        self.concurrency, self.retries, self.backoff = concurrency, retries, backoff
        self._structured, self._token_field = structured, token_field
        self._pace, self._timeout = _Pace(rpm), timeout
        self._client = _client(base_url, self._key, concurrency, timeout)

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r}, base_url={self.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Return one answer or failure per request, in their order, asked side by side."""
        if len(requests) == 1:
            return [self._ask(requests[0])]
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(self._ask, requests))

    def _ask(self, request: Request) -> Answer | Failure:
        body = request_body(
            request, self.model, structured=self._structured, token_field=self._token_field
        )
        content = json.dumps(body).encode()
        for attempt in range(self.retries + 1):
            self._pace.wait()
            outcome, wait = self._try(content, request)
            last = attempt == self.retries or wait is None or wait > _LONGEST_WAIT
            if isinstance(outcome, Answer) or last:
                return outcome
            if wait:  # the server is asked by others, too: all wait
                self._pace.hold(wait)
            else:
                time.sleep(random.uniform(0, min(60.0, self.backoff * 2**attempt)))
        raise AssertionError("not reached")

    def _try(self, content: bytes, request: Request) -> tuple[Answer | Failure, float | None]:
        """Return the outcome of one request, and how long to wait before another.

        0 leaves the time to the client, None says that another would fail, too.
        """
        import httpx

        started = time.monotonic()
        try:
            response, payload = self._send(content)
        except httpx.TimeoutException:
            seconds = time.monotonic() - started
            return self._failure(f"no answer within {seconds:.0f} s", retryable=True), 0.0
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = f"{self.base_url} cannot be reached ({type(error).__name__}: {reason(error)})"
            return self._failure(why, retryable=True), 0.0
        if response.status_code != 200:
            return self._refused(response, payload)
        try:
            value = json.loads(payload)
            seconds = time.monotonic() - started
            return read_answer(value, request, model=self.model, seconds=seconds), None
        except (ValueError, RecursionError) as error:
            why = f"malformed answer ({reason(error)})"
            return self._failure(why, retryable=True), 0.0

    def _send(self, content: bytes) -> tuple[httpx.Response, bytes]:
        import httpx

        url = f"{self.base_url}/chat/completions"
        payload = b""
        with self._client.stream("POST", url, content=content) as response:
            end = time.monotonic() + self._timeout
            for chunk in response.iter_raw():
                payload += chunk
                if len(payload) > _LARGEST:
                    break
                if time.monotonic() > end:  # it sends, but so slowly that it would never end
                    raise httpx.ReadTimeout("the answer does not end")
        return response, payload

    def _refused(
        self, response: httpx.Response, payload: bytes
    ) -> tuple[Answer | Failure, float | None]:
        status, said = response.status_code, _server_words(payload)
        final = status not in RETRIED or "insufficient_quota" in said
        failure = self._failure(f"{status}: {_explain(status, said)}", retryable=not final)
        return failure, None if final else _retry_after(response.headers.get("retry-after"))

    def _failure(self, why: str, *, retryable: bool) -> Failure:
        shown = why.replace(self._key, "***") if self._key else why  # a server may quote it
        return Failure(one_line(shown)[:500], retryable)


def _client(base_url: str, key: str | None, concurrency: int, timeout: float) -> httpx.Client:
    try:
        import httpx
    except ImportError:
        raise missing_library("an endpoint", "httpx", "vlm-hv[api]") from None
    headers = {"content-type": "application/json", "user-agent": "vlm-hv"}
    headers["accept-encoding"] = "identity"  # what is packed may be endless unpacked
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return httpx.Client(
        headers=headers,
        timeout=timeout,
        limits=httpx.Limits(max_connections=concurrency),
        follow_redirects=False,  # images and key go where the user said, nowhere else
        trust_env=not is_loopback(base_url),  # no proxy between this machine and itself
    )


def _server_words(payload: bytes) -> str:
    """Return what a server says of an error, at most 300 characters."""
    text = payload[:10_000].decode("utf-8", errors="replace")
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(re.sub(r"<[^>]*>", " ", text))[:300]
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        said = [error.get(name) for name in ("message", "detail", "code", "type")]
        return one_line(", ".join(str(part) for part in said if part))[:300]
    return one_line(str(error))[:300]


_HINTS = (
    (r"image|vision|multi-?modal|content type|content must be a string", "the model or server does "
     "not take these pictures: choose a vision-language model, or --layout concat where it takes "
     "one picture only"),
    (r"response_format|json_schema|schema", "try --structured object or --structured none"),
    (r"logprob", "no token probabilities here: take --mode direct"),
    (r"max_completion_tokens", "pass --token-field max_completion_tokens"),
)  # fmt: skip


def _explain(status: int, said: str) -> str:
    """Return the server's words with what to do about them."""
    if status in (401, 403):
        return f"the key was refused ({said}); check the variable named by --api-key-env"
    if 300 <= status < 400:
        return "the server redirects, which is not followed; give its final address as --base-url"
    if status == 404:
        return f"no such model or address ({said}); check --model, and that --base-url ends in /v1"
    hints = [hint for pattern, hint in _HINTS if re.search(pattern, said, re.IGNORECASE)]
    useful = status in (400, 413, 415, 422, 500, 501) and hints
    return f"{said or 'no message'}; {hints[0]}" if useful else said or "no message"


def _retry_after(value: str | None) -> float:
    """Return the seconds of a Retry-After header: a number or a date; 0 if there is none."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = email.utils.parsedate_to_datetime(value)
            seconds = then.timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if seconds == seconds else 0.0
