from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from papercommons.errors import DataError
from vlm_hv.cache import Cache
from vlm_hv.conversation import Answer, Message, Request

REQUEST = Request((Message("user", ("same?",)),), 8, 0.0, 0)
ANSWER = Answer("Yes", 7, None, 0.5, "stop", "m", {"yes": -0.1, "no": -math.inf})


class Nobody:
    name = "openai"

    def __init__(self, model: str = "m", base_url: str = "http://localhost/v1") -> None:
        self.model, self.base_url = model, base_url

    def answer(self, requests: Sequence[Request]) -> list[Any]:
        raise AssertionError("not asked")


def test_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", Nobody())
    key = cache.key(REQUEST)
    assert cache.get(key) is None
    cache.put(key, ANSWER)
    assert Cache(tmp_path / "cache", Nobody()).get(key) == ANSWER


def test_key_is_of_question_model_and_address() -> None:
    cache = Cache(None, Nobody())
    others = [
        cache.key(replace(REQUEST, seed=1)),
        Cache(None, Nobody("n")).key(REQUEST),
        Cache(None, Nobody(base_url="http://localhost:1/v1")).key(REQUEST),
    ]
    assert len({cache.key(REQUEST), *others}) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"key": "K", "answer": null}',
        b'{"key": "other", "answer": {}}',
        b'{"key": "K", "answer": {"text": "Yes"}}',
    ],
)
def test_broken_file_is_no_answer(tmp_path: Path, content: bytes) -> None:
    cache = Cache(tmp_path, Nobody())
    key = cache.key(REQUEST)
    path = tmp_path / key[:2] / f"{key}.json"
    path.parent.mkdir()
    path.write_bytes(content.replace(b"K", key.encode()))
    assert cache.get(key) is None
    cache.put(key, ANSWER)
    assert cache.get(key) == ANSWER


def test_wrong_type_inside_is_no_answer(tmp_path: Path) -> None:
    cache = Cache(tmp_path, Nobody())
    key = cache.key(REQUEST)
    cache.put(key, ANSWER)
    (path,) = tmp_path.glob("*/*.json")
    kept = json.loads(path.read_text())
    for name, wrong in (("text", 3), ("seconds", "x"), ("choice_logprobs", {"yes": "x"})):
        path.write_text(json.dumps(kept | {"answer": kept["answer"] | {name: wrong}}))
        assert cache.get(key) is None


def test_empty_answers_are_not_kept_and_a_file_is_no_folder(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", Nobody())
    cache.put(cache.key(REQUEST), Answer("", 1, 1, 0.1, "length", "m"))
    assert not (tmp_path / "cache").exists()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="--cache must be a folder"):
        Cache(tmp_path / "file", Nobody())
