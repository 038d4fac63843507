"""Encoders on disk, as `ssl-hv-pretrain` leaves them; verifiers hold one, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from papercommons.checkpoint import (
    check_weights,
    load_weights,
    read_config,
    read_state_dict,
    save_model,
)
from papercommons.errors import DataError, reason
from papercommons.files import write_text
from papercommons.versions import installed_version
from torch import nn

from ssl_hv.encoders import create_encoder
from ssl_hv.options import PACKAGE

M = TypeVar("M", bound=nn.Module)

CARD = """# Encoder of handwritten words: {encoder}, pre-trained with {method}

Saved by ssl-hv {version}. It gives vectors, no verdicts: `ssl-hv-train --encoder FOLDER` makes a
verifier of it. In Python: `ssl_hv.saved.load_encoder("FOLDER")`.

- Input: float32 (N, {channels}, {size}, {size}), ink 1, paper 0. Output: (N, {dim}).
- Made by: {made_by}
- Trained without labels on images with hash {data_hash}.
"""


def save_encoder(
    encoder: nn.Module, folder: str | Path, *, name: str, options: dict[str, Any], **about: Any
) -> Path:
    """Write the encoder, what builds it again, and a card.

    Args:
        encoder: its weights.
        folder: made if absent.
        name: for `create_encoder`.
        options: further arguments for it, plain types.
        **about: what else config.json keeps: method, made_by, data_hash, ...
    """
    version = installed_version(PACKAGE)
    config = {"kind": "encoder", "encoder": name, "encoder_options": options}
    save_model(encoder, folder, {**config, "package": PACKAGE, "version": version, **about})
    card = CARD.format(
        encoder=name,
        version=version,
        channels=options.get("in_channels", 1),
        size=options.get("image_size", 64),
        dim=encoder.dim,
        **{key: about.get(key, "not said") for key in ("method", "made_by", "data_hash")},
    )
    write_text(Path(folder) / "README.md", card)
    return Path(folder)


def load_encoder(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the encoder of a saved encoder or verifier, and its configuration.

    Args:
        folder: with config.json.

    Raises:
        DataError: missing, broken, or neither.
    """
    config = read_config(folder, package=PACKAGE, entries=("encoder", "encoder_options"))
    part = None if config.get("kind") == "encoder" else "encoder"
    encoder = build_saved(
        lambda: create_encoder(config["encoder"], **config["encoder_options"]), folder, part=part
    )
    return encoder.eval(), config


def build_saved(make: Callable[[], M], folder: Path, *, part: str | None = None) -> M:
    """Return a network with the weights of a folder; sizes that these do not have take no memory.

    Args:
        make: the network that config.json describes.
        folder: with model.safetensors.
        part: see `papercommons.checkpoint.read_state_dict`.

    Raises:
        DataError: config.json or weights are broken, or do not fit each other.
    """
    weights, source = read_state_dict(folder, part=part), str(folder)
    try:
        with torch.device("meta"):
            check_weights(make(), weights, source=source)
        network = make()
    except DataError:
        raise
    except Exception as error:  # networks fail in many ways on sizes that are none
        raise DataError(f"{folder}/config.json: {reason(error)}") from error
    load_weights(network, weights, source=source)
    return network
