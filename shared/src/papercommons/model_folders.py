"""Model folders of diffusers and transformers, looked at before these read them; needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from papercommons.errors import DataError, reason

MOST_BYTES = 100_000_000  # of a configuration or a vocabulary
MOST = 10_000
MOST_STEPS = 100_000  # of the noise: tables of that length are made
_COUNTS = frozenset(
    {
        *("depth", "num_labels", "image_seq_length", "sample_size", "image_size"),
        *("size", "crop_size", "height", "width"),  # of the pictures that a processor makes
    }
)
_CONFIGS = frozenset(
    ("config.json", "scheduler_config.json", "preprocessor_config.json", "processor_config.json")
)


def check_model_folder(folder: str | Path) -> None:
    """Raise if the files of a model's folder would keep a reader busy without end.

    Args:
        folder: of a model; a hub id passes.

    Raises:
        DataError: a configuration or vocabulary is larger than 100 MB, or see `check_config`.
    """
    if not Path(folder).is_dir():
        return
    for path in sorted([*Path(folder).glob("*"), *Path(folder).glob("*/*")]):
        if path.suffix not in (".json", ".txt") or not path.is_file():
            continue
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: larger than {MOST_BYTES:,} bytes; no model has such a file")
        if path.name in _CONFIGS:
            check_config(path)


def check_config(path: Path) -> None:
    """Raise if a configuration is none, or asks for more than any model has.

    That is 10,000 layers, labels, tokens of a picture or pixels of a side, and 100,000 steps of
    a scheduler.

    Args:
        path: JSON file of a network, a scheduler or a processor.

    Raises:
        DataError: see above.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable JSON ({reason(error)})") from None
    if not isinstance(config, Mapping):
        raise DataError(f"{path}: not a configuration, which is an object")
    for name, value in _entries(config):
        if name == "num_train_timesteps" and path.name == "scheduler_config.json":
            if type(value) is not int or not 0 < value <= MOST_STEPS:
                raise DataError(f"{path}: {name} must be in [1, {MOST_STEPS:,}], is {value!r:.60}")
        elif name in _COUNTS or "layers" in name:
            given = value if isinstance(value, list) else [value]
            if any(isinstance(n, int | float) and not n <= MOST for n in given):
                raise DataError(f"{path}: {name} must be at most {MOST:,}, is {value!r:.60}")


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give each entry of nested objects; a loop, for they may be nested deep."""
    left: list[Any] = [config]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            yield from value.items()
            left += value.values()
        elif isinstance(value, list):
            left += value
