"""Networks of metrics from folders and hub ids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from papercommons.checkpoint import bounded_folder
from papercommons.errors import DataError, reason


def load_network(kind: Any, source: str | Path, **options: Any) -> Any:
    """Return a network of transformers, for evaluation only.

    Args:
        kind: its class.
        source: folder or hub id.
        options: for ``from_pretrained``.

    Raises:
        DataError: see `load_part`, or weights are missing.
    """
    network, report = load_part(kind, source, output_loading_info=True, **options)
    if missing := sorted(report["missing_keys"]):
        raise DataError(
            f"{source}: not the weights of a {kind.__name__}: {len(missing)} are missing, such as "
            f"{missing[0]}"
        )
    return network.eval().requires_grad_(False)


def load_part(kind: Any, source: str | Path, **options: Any) -> Any:
    """Return what ``from_pretrained`` of a class of transformers gives.

    Args:
        kind: of a network or a processor.
        source: folder or hub id.
        options: for ``from_pretrained``.

    Raises:
        DataError: no such folder, or not what is expected.
    """
    folder = Path(source)
    if not folder.is_dir() and (folder.is_absolute() or str(source).count("/") != 1):
        raise DataError(f"{source}: no such folder, and not a hub id (owner/name)")
    try:
        with _quiet_transformers(), bounded_folder(source):
            return kind.from_pretrained(str(source), **options)
    except DataError:
        raise
    except Exception as error:  # readers fail in many ways on what is broken
        raise DataError(
            f"{source}: not a readable {kind.__name__} of transformers ({reason(error)})"
        ) from error


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
