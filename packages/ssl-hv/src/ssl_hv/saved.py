"""Encoders on disk, as `ssl-hv-pretrain` leaves them; verifiers hold one, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from papercommons.checkpoint import build_saved, read_config, save_model
from papercommons.files import write_text
from papercommons.versions import installed_version
from torch import nn

from ssl_hv.encoders import create_encoder
from ssl_hv.options import PACKAGE

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
