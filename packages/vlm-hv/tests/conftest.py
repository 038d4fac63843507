from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from papercommons.testing import drawn_words
from PIL import Image

pytest_plugins = ["papercommons.testing.fixtures"]


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("vlm_hv")


@pytest.fixture(scope="session")
def write_words() -> Callable[..., Path]:
    """Write words of made-up writers as ROOT/WRITER/*.png."""

    def write(root: Path, writers: Any = range(8), samples: int = 4, **how: Any) -> Path:
        return drawn_words.write_words(root, writers, samples, **how)

    return write


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory, write_words: Callable[..., Path]) -> Path:
    """Words shared by all tests, which leave them as they are."""
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="session")
def save_tiny() -> Callable[[Any, Any, Path], Path]:
    """Write a model and its processor as a folder that any tool of the field loads."""

    def save(model: Any, processor: Any, folder: Path) -> Path:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return save


class RecordingServer:
    """An OpenAI-compatible server that keeps every request and answers as told.

    `script` holds (status, headers, content) for the next requests; content None lets the client
    wait; with `drip` a byte is sent in so many seconds. Then `reply` makes the text of an answer
    from the body of the request.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.script: list[tuple[int, dict[str, str], bytes | None]] = []
        self.reply: Callable[[dict[str, Any]], str] = lambda body: "Yes"
        self.logprobs: dict[str, float] | None = None
        self.usage: dict[str, int] | None = {"prompt_tokens": 700, "completion_tokens": 20}
        self.delay = self.drip = 0.0
        self.under_way = self.peak = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server._lock:
                    server.under_way += 1
                    server.peak = max(server.peak, server.under_way)
                    server.requests.append(body | {"path": self.path})
                    server.headers.append(dict(self.headers))
                    server.times.append(time.monotonic())
                    told = server.script.pop(0) if server.script else None
                time.sleep(server.delay)
                status, headers, content = told or (200, {}, server.completion(body))
                if content is None:
                    time.sleep(0.8)
                    content = b"{}"
                with server._lock:
                    server.under_way -= 1
                self.send_response(status)
                for name, value in (headers | {"content-length": str(len(content))}).items():
                    self.send_header(name, value)
                self.end_headers()
                for byte in content if server.drip else ():
                    time.sleep(server.drip)
                    self.wfile.write(bytes((byte,)))
                self.wfile.write(b"" if server.drip else content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def sent_pictures(body: dict[str, Any]) -> list[bytes]:
        """The PNG files of a chat-completions request, in order."""
        prefix, found = "data:image/png;base64,", []
        for message in body["messages"]:
            for part in message["content"] if isinstance(message["content"], list) else []:
                if part["type"] == "image_url":
                    assert part["image_url"]["url"].startswith(prefix)
                    found.append(
                        base64.b64decode(part["image_url"]["url"][len(prefix) :], validate=True)
                    )
        return found

    @staticmethod
    def sent_texts(body: dict[str, Any]) -> list[str]:
        """All text of a chat-completions request, in order."""
        found = []
        for message in body["messages"]:
            content = message["content"]
            found += [content] if isinstance(content, str) else []
            found += [
                p["text"] for p in content if isinstance(content, list) and p["type"] == "text"
            ]
        return found

    @staticmethod
    def ink(png: bytes) -> float:
        """Darkness of a picture: a stand-in for what a model sees."""
        return 255 - float(np.asarray(Image.open(io.BytesIO(png)).convert("L")).mean())

    def completion(self, body: dict[str, Any]) -> bytes:
        message = {"role": "assistant", "content": self.reply(body)}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        if self.logprobs is not None and body.get("logprobs"):
            told = [{"token": t, "logprob": v} for t, v in self.logprobs.items()]
            choice["logprobs"] = {"content": [told[0] | {"top_logprobs": told}]}
        value = {"model": f"{body['model']}-2026", "choices": [choice]}
        return json.dumps(value | ({"usage": self.usage} if self.usage else {})).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """A recording server on this machine."""
    found = RecordingServer()
    yield found
    found.close()


@pytest.fixture(scope="session")
def call() -> Callable[..., int]:
    """Run a command as the shell would; gives its exit code."""
    from papercommons.cli import run_command
    from vlm_hv import cli

    commands = vars(cli) | {"eval": cli.evaluate}

    def call(verb: str, *arguments: object) -> int:
        words = list(map(str, arguments))
        return run_command(commands[verb], prog=f"vlm-hv-{verb}", argv=words)

    return call


@pytest.fixture
def ask(call: Callable[..., int], words: Path, server: RecordingServer) -> Callable[..., int]:
    """Run vlm-hv-predict on the shared words against the recording server."""

    def ask(*arguments: object) -> int:
        where = ("--data", words, "--model", "fake", "--backend", "openai", "--base-url")
        small = ("--min-side", 0, "--border", 0)
        return call("predict", *where, server.url, *small, *arguments)

    return ask
