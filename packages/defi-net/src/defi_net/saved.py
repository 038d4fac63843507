"""Networks on disk: a folder with model.safetensors, config.json and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from papercommons.checkpoint import build_saved, read_config, save_model
from papercommons.errors import DataError
from papercommons.files import find_saved, write_text
from papercommons.versions import installed_version

from defi_net.model import DeFINet
from defi_net.official import load_official
from defi_net.options import PACKAGE

MAX_SIZE = 4096  # pixels of a side
LIMITS = (
    "It finds traces of the kinds of inpainting it was trained on; other methods, strong "
    "compression or resizing hide them, and textures of an untouched photo can look like them. A "
    "map is a hint for an examiner, no proof."
)

CARD = """# DeFI-Net ({neck}, {head}, width {width}, {backbone})

Saved by defi-net {version}. Load it with `defi_net.DeFINet.from_pretrained("FOLDER")`; its
`probabilities` take RGB images in [0, 1], shape (N, 3, H, W), sides >= {least}, and give the
probability of "inpainted" per pixel, shape (N, 1, H, W).

- Normalisation inside: {normalization}.
- Made by: {made_by}
- Trained on files with hash {data_hash}; all settings: config.yaml and result.json of the run.
- Limits: {limits}
"""


def save_network(model: DeFINet, folder: str | Path, **about: Any) -> Path:
    """Write the network, what builds it again, and a model card; return the folder.

    Args:
        model: its weights and its ``config``.
        folder: made if absent.
        **about: what else config.json keeps, plain types (made_by, data_hash, size, ...).
    """
    version = installed_version(PACKAGE)
    saved = {"package": PACKAGE, "version": version, "limits": LIMITS, **about}
    save_model(model, folder, {**saved, "model": model.config})
    shown = {key: about.get(key, "not said") for key in ("made_by", "data_hash")}
    least = max(16, model.multiple // 2)
    card = CARD.format(version=version, limits=LIMITS, least=least, **shown, **model.config)
    write_text(Path(folder) / "README.md", card)
    return Path(folder)


def load_network(path: str | Path) -> tuple[DeFINet, dict[str, Any]]:
    """Return a network in evaluation mode, and its configuration.

    Args:
        path: folder of a saved network, or of the run that made it; or a file, a checkpoint of
            the published code.

    Returns:
        The network, and config.json; for a published checkpoint only ``model``, its arguments.

    Raises:
        DataError: missing, broken, or of something else.
    """
    if Path(path).is_file():
        model = load_official(path)
        return model, {"model": model.config}
    folder = find_saved(path)
    config = read_config(folder, package=PACKAGE, entries=("model",))
    size = config.get("size")  # no entry where nothing was trained
    if size is not None and (type(size) is not int or not 16 <= size <= MAX_SIZE):
        raise DataError(f"{folder}/config.json: size must be in [16, {MAX_SIZE}], got {size!r}")
    model = build_saved(lambda: DeFINet(**{**config["model"], "pretrained": False}), folder)
    return model.eval(), config
