"""What the client costs per request, beside a bare POST of the same bytes, and what workers gain.

``python -m pytest packages/vlm-hv/bench/bench_client.py -s``. The server is on this machine and
answers at once, or after 50 ms; times are only printed.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from papercommons.testing.timing import compare_speed
from PIL import Image
from vlm_hv import prompts
from vlm_hv.cases import Case, CaseList
from vlm_hv.chat_completions import request_body
from vlm_hv.conversation import Message, Request
from vlm_hv.endpoint import Endpoint
from vlm_hv.images import PictureOptions, pictures
from vlm_hv.modes import AskOptions
from vlm_hv.running import run_cases

httpx = pytest.importorskip("httpx", reason="needs httpx (vlm-hv[api])")

MESSAGE = {"role": "assistant", "content": "Yes"}
COMPLETION = json.dumps({"model": "m", "choices": [{"message": MESSAGE}]}).encode()


@pytest.fixture(scope="module")
def server():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        delay = 0.0

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(Handler.delay)
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(COMPLETION)}\r\n\r\n"
            self.wfile.write(head.encode() + COMPLETION)

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found, Handler
    found.shutdown()
    found.server_close()


def word(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    return Image.fromarray(random.integers(0, 2, (16, 16), np.uint8) * 255).resize((64, 64))


def test_one_request(server, record):
    address, handler = server
    handler.delay = 0.0
    url = f"http://127.0.0.1:{address.server_port}/v1"
    shown = pictures(word(0), word(1), PictureOptions())
    request = Request((Message("user", ("Same writer?", *shown)),), 8, 0.0, 0)
    body = json.dumps(request_body(request, "m")).encode()
    with Endpoint("m", base_url=url) as endpoint, httpx.Client(trust_env=False) as client:
        assert endpoint.answer([request])[0].text == "Yes"
        speed = compare_speed(
            lambda: endpoint.answer([request]),
            lambda: client.post(f"{url}/chat/completions", content=body).json(),
        )
    record(
        measured="client: one request / a bare POST of the same bytes",
        size=f"two pictures, {len(body) / 1000:.0f} kB",
        ours=f"{1e3 * speed.ours_s:.1f} ms",
        plain=f"{1e3 * speed.reference_s:.1f} ms",
        **speed.ratios(),
    )


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_run(server, record, tmp_path, workers):
    address, handler = server
    handler.delay, count = 0.05, 64
    url = f"http://127.0.0.1:{address.server_port}/v1"
    cases = [Case(str(2 * n), str(2 * n + 1), n % 2) for n in range(count)]
    found = CaseList(cases, lambda name: word(int(name)), "")
    started = time.perf_counter()
    with Endpoint("m", base_url=url, concurrency=workers) as endpoint:
        run = run_cases(
            found,
            endpoint,
            prompts.load("forensic_v1"),
            AskOptions(mode="direct"),
            out=tmp_path / "predictions.jsonl",
            workers=workers,
        )
    seconds = time.perf_counter() - started
    assert len(run.records) == count
    ideal = workers / handler.delay
    record(
        measured="client: a run / the server's own 50 ms alone",
        size=f"{count} pairs, {workers} at a time",
        ours=f"{count / seconds:.0f} pairs/s",
        plain=f"{ideal:.0f} pairs/s",
        ratio=round(count / seconds / ideal, 2),
        lowest=None,
        highest=None,
    )
