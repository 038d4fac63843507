"""Networks on disk: a folder with model.safetensors, config.json and a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.errors import DataError
from papercommons.versions import installed_version

from nlran.options import PACKAGE

if TYPE_CHECKING:
    from torch import nn

    from nlran.preparation import Preparation

RESEARCH_USE = "Research use only: not a medical device, not for diagnosis or treatment."

ENTRIES = ("model", "options", "classes", "preparation")

CARD = """# {model}, classes {classes}

**{research}**

A network saved by nlran {version}. Load it with `nlran.load_network("FOLDER")`.

- Input: chest CT, {units}, resampled as `preparation` in config.json says, values 0 to 1, shape
  (B, 1, {size}).
- Output: logits, shape (B, {count}), in the order of `classes` in config.json.
- Made by: {made_by}
- Trained on scans with hash {data_hash}, on {device}; all settings: config.yaml and result.json of
  the run.
- Limits: it names one of its classes for any scan. What it learnt may be the scanner or the
  hospital rather than the disease (`nlran-audit` looks for that); heat maps show where features
  respond, they do not prove why.
"""


def save_network(
    network: nn.Module,
    folder: str | Path,
    *,
    model: str,
    options: Mapping[str, Any],
    classes: Sequence[str],
    preparation: Preparation,
    data_hash: str,
    device: str,
    made_by: str,
) -> Path:
    """Write the network, what it needs as input, and a model card.

    Args:
        network: its weights.
        folder: made if absent.
        model: name for `create_network`.
        options: further arguments for it, plain types.
        classes: names, in the order of the logits.
        preparation: how scans were prepared.
        data_hash: short hash of the training scans.
        device: what it was trained on.
        made_by: the command and its settings in a line.
    """
    from papercommons.checkpoint import save_model
    from papercommons.files import write_text

    version = installed_version(PACKAGE)
    config = {
        "model": model,
        "options": dict(options),
        "classes": list(classes),
        "preparation": asdict(preparation),
        "data_hash": data_hash,
        "device": device,
        "made_by": made_by,
        "package": PACKAGE,
        "version": version,
        "use": RESEARCH_USE,
    }
    save_model(network, folder, config)
    card = CARD.format(
        model=model,
        classes=", ".join(classes),
        count=len(classes),
        size=", ".join(map(str, preparation.size)),
        units=preparation.units,
        version=version,
        made_by=made_by,
        data_hash=data_hash,
        device=device,
        research=RESEARCH_USE,
    )
    write_text(Path(folder) / "README.md", card)
    return Path(folder)


def load_network(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Return the network, in evaluation mode, and its configuration.

    Args:
        path: folder of a saved network, or of a run.

    Returns:
        The network, and config.json with ``preparation`` as a `Preparation`.

    Raises:
        DataError: missing, broken, or not this package's.
    """
    from papercommons.checkpoint import build_saved, read_config
    from papercommons.errors import reason
    from papercommons.files import find_saved

    from nlran.networks import create_network
    from nlran.preparation import Preparation

    folder = find_saved(path)
    config = read_config(folder, package=PACKAGE, entries=ENTRIES)
    classes, saved = config["classes"], config["preparation"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{folder}/config.json: classes: expected a list of names")
    try:
        if missing := [field.name for field in fields(Preparation) if field.name not in saved]:
            raise ValueError(f"no entry {', '.join(missing)}")
        config["preparation"] = Preparation(**saved)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise DataError(f"{folder}/config.json: preparation: {reason(error)}") from error
    network = build_saved(
        lambda: create_network(config["model"], len(classes), **config["options"]), folder
    )
    return network.eval(), config
