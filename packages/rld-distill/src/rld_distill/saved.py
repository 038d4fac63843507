"""Classifiers on disk: a folder with model.safetensors, config.json and a model card."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

from rld_distill.options import PACKAGE

if TYPE_CHECKING:
    from torch import nn

    from rld_distill.data import DistillData

MAX_SIZE = 4096  # pixels of a side
ENTRIES = ("model", "num_classes", "classes", "size", "mean", "std")
CARD = """# {model}, {classes} classes

A classifier saved by rld-distill {version}. Load it with `rld_distill.load_network("FOLDER")`.

- Input: RGB images, values in [0, 1] minus {mean} over {std}, shape (B, 3, {size}, {size}).
- Output: logits, shape (B, {classes}), in the order of `classes` in config.json.
- Made by: {made_by}
- Limits: it knows only these classes and names one of them for any picture; accuracy holds for
  pictures like the training set's.
"""


def save_network(
    network: nn.Module, folder: str | Path, *, name: str, data: DistillData, made_by: str
) -> Path:
    """Write the network, what it needs as input, and a model card.

    Args:
        network: takes normalised images.
        folder: made if absent.
        name: for `create_model`.
        data: what it was trained on.
        made_by: the command and its settings in a line.
    """
    from papercommons.checkpoint import save_model
    from papercommons.files import write_text

    config = {
        "model": name,
        "num_classes": len(data.classes),
        "classes": list(data.classes),
        "size": data.size,
        "mean": list(data.mean),
        "std": list(data.std),
        "data_hash": data.data_hash,
        "made_by": made_by,
        "package": PACKAGE,
        "version": installed_version(PACKAGE),
    }
    save_model(network, folder, config)
    card = CARD.format(
        model=name,
        classes=len(data.classes),
        size=data.size,
        mean=list(data.mean),
        std=list(data.std),
        version=installed_version(PACKAGE),
        made_by=made_by,
    )
    write_text(Path(folder) / "README.md", card)
    return Path(folder)


def load_network(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network, in evaluation mode, and its configuration.

    Args:
        path: folder of a saved classifier, or of a run.

    Raises:
        DataError: missing, broken, or not this package's.
    """
    from papercommons.checkpoint import build_saved, read_config
    from papercommons.errors import DataError, reason
    from papercommons.files import find_saved

    from rld_distill.zoo import create_model

    folder = find_saved(path)
    config = read_config(folder, package=PACKAGE, entries=ENTRIES)
    try:
        _check_input(config)
    except (TypeError, ValueError) as error:
        raise DataError(f"{folder}/config.json: {reason(error)}") from error
    network = build_saved(lambda: create_model(config["model"], config["num_classes"]), folder)
    return network.eval(), config


def _check_input(config: dict[str, Any]) -> None:
    """Raise ValueError or TypeError where what the network needs as input cannot be."""
    if len(config["classes"]) != config["num_classes"]:
        raise ValueError(f"classes: expected {config['num_classes']} names")
    if not all(isinstance(name, str) for name in config["classes"]):
        raise ValueError("classes: expected names")
    if not 1 <= config["size"] <= MAX_SIZE:
        raise ValueError(f"size must be in [1, {MAX_SIZE}], got {config['size']}")
    if len(config["mean"]) != 3 or len(config["std"]) != 3:
        raise ValueError("mean and std: expected three numbers each")
    if not all(map(math.isfinite, config["mean"])) or not all(0 < s < 1e6 for s in config["std"]):
        raise ValueError("mean must be finite and std above 0")
