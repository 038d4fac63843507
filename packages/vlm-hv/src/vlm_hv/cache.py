"""Answers on disk by the content of the question, so nothing is asked twice; needs no torch.

A file holds the answer and the hash of the question: neither pictures nor prompts nor keys.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from papercommons.errors import DataError
from papercommons.files import write_json

from vlm_hv.conversation import Answer, Backend, Request

_MOST = 16_000_000  # bytes of a cached answer
_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "prompt_tokens": (int, type(None)),
    "completion_tokens": (int, type(None)),
    "seconds": (int, float),
    "finish_reason": (str, type(None)),
    "model": (str,),
    "choice_logprobs": (dict, type(None)),
}


class Cache:
    """A folder of answers; several processes may share it.

    Args:
        folder: made when the first answer is kept; None keeps nothing.
        backend: whose answers; another model or address is another key.

    Raises:
        DataError: `folder` is a file.
    """

    def __init__(self, folder: str | Path | None, backend: Backend) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise DataError(f"{folder}: --cache must be a folder, this is a file")
        where = str(getattr(backend, "base_url", "") or getattr(backend, "digest", "") or "")
        self._backend = json.dumps([backend.name, backend.model, where])

    def key(self, request: Request) -> str:
        """Return the hexadecimal hash of the question and of whom it is put to."""
        asked = f"{self._backend}\n{request.digest()}"
        return hashlib.sha256(asked.encode("utf-8", errors="surrogateescape")).hexdigest()

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Answer | None:
        """Return the answer kept under `key`; None if there is none, or its file is broken."""
        path = self._path(key)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                value = json.loads(file.read(_MOST).decode("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return _answer(value, key)

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer, whole or not at all; an empty one is not kept."""
        path = self._path(key)
        if path is None or not (answer.text or answer.choice_logprobs):
            return
        kept = asdict(answer)
        if answer.choice_logprobs is not None:  # JSON knows no infinity
            kept["choice_logprobs"] = {
                word: value if math.isfinite(value) else None
                for word, value in answer.choice_logprobs.items()
            }
        write_json(path, {"key": key, "answer": kept})


def _answer(value: Any, key: str) -> Answer | None:
    """Return the answer of a cache file if it is as `Cache.put` writes it."""
    kept = value.get("answer") if isinstance(value, dict) and value.get("key") == key else None
    if not isinstance(kept, dict) or set(kept) != {field.name for field in fields(Answer)}:
        return None
    if not all(isinstance(kept[name], types) for name, types in _TYPES.items()):
        return None
    told = kept["choice_logprobs"]
    if told is not None:
        if not all(isinstance(v, int | float | None) for v in told.values()):
            return None
        told = {word: -math.inf if v is None else float(v) for word, v in told.items()}
    return Answer(**{**kept, "choice_logprobs": told})
