"""The backend `openai` against a real server: `transformers serve` with a tiny real Qwen2-VL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from papercommons.data.words import open_words
from PIL import Image
from vlm_hv.conversation import Answer, Message, Request
from vlm_hv.endpoint import Endpoint
from vlm_hv.images import PictureOptions, pictures
from vlm_hv.loading import load_model
from vlm_hv.local import LocalModel
from vlm_hv.tiny import tiny_qwen2_vl

NEEDED = ("fastapi", "uvicorn", "openai", "accelerate", "httpx")
MISSING = [name for name in NEEDED if find_spec(name) is None]
COMMAND = Path(sys.executable).with_name("transformers")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"vlm-hv[serve] is missing {', '.join(MISSING)}"),
    pytest.mark.skipif(not COMMAND.is_file(), reason="the command transformers is not installed"),
]


@pytest.fixture(scope="module")
def folder(save_tiny, tmp_path_factory):
    model, processor = tiny_qwen2_vl()
    return save_tiny(model, processor, tmp_path_factory.mktemp("serve") / "tiny-qwen2-vl")


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    """A server on a free port, up when its health check answers, ended with the tests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()
    environment = os.environ | {
        **{"HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": "1"},
        "CUDA_VISIBLE_DEVICES": "",
    }
    log = home / "log.txt"
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [COMMAND, "serve", *where, str(folder)], env=environment, stdout=output, stderr=output
        )
    base = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(server, base, log)
        yield f"{base}/v1"
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(home, ignore_errors=True)


def wait_until_healthy(server, base, log):
    until = time.monotonic() + 240
    while time.monotonic() < until:
        if server.poll() is not None:
            pytest.fail(f"the server ended with {server.returncode}: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the server did not come up: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def requests(shared_files):
    """Four real pairs, as they are sent."""
    words = open_words(shared_files / "data/cedar-and")
    shown = [Image.fromarray(words.read(place)) for place in range(8)]
    options = PictureOptions(min_side=112, border=0)
    asked = []
    for known, questioned in zip(shown[:4], shown[4:], strict=True):
        one, other = pictures(known, questioned, options)
        parts = ("Known sample:", one, "Questioned sample:", other, "Same writer? Yes or no.")
        asked.append(Request((Message("user", parts),), 8, 0.0, 0))
    return asked


def test_a_real_server_answers_real_pairs_as_the_model_itself_does(address, folder, requests):
    """Prompt length and greedy words agree with the local backend: the pictures arrived."""
    endpoint = Endpoint(str(folder), base_url=address, timeout=180, retries=1, concurrency=2)
    try:
        served = endpoint.answer(requests)
    finally:
        endpoint.close()
    local = LocalModel(load_model(folder, device="cpu")).answer(requests)
    for there, here in zip(served, local, strict=True):
        assert isinstance(there, Answer), there
        assert there.prompt_tokens == here.prompt_tokens > 40
        assert there.completion_tokens is not None
        assert there.text.strip() == here.text
    assert len({answer.text for answer in served}) > 1
