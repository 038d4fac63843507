"""Networks on disk: a folder with model.safetensors, config.json and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from papercommons.checkpoint import build_saved, read_config, save_model
from papercommons.errors import DataError
from papercommons.files import find_saved, write_text
from papercommons.versions import installed_version

from cmdfd.model import CMDFDNet
from cmdfd.one_stream import build_net
from cmdfd.options import PACKAGE

LIMITS = (
    "It looks for what its training clips taught it: forgeries made in another way, another crop, "
    "strong compression, dubbing, noise, or sound that was recorded apart can make it wrong either "
    "way. The result is a hint for a person to check, no proof."
)

CARD = """# CMDFD: voice against mouth ({dim} dimensions, {visual_width} channels)

Saved by cmdfd {version}. In Python: `cmdfd.load_network("FOLDER")`.

- Input: MFCC of the voice, `cmdfd.mfcc`, (B, 4T, 13); grey face crops of {size} pixels at 25 per
  second, 0 to 255, (B, T, H, W).
- Output: logits of real and fake per frame, (B, T, 2), and embeddings of both streams.
- Made by: {made_by}
- Trained on clips with hash {data_hash}.
- Limits: {limits}
"""


def save_network(net: CMDFDNet, folder: str | Path, **about: Any) -> Path:
    """Write the network, what builds it again, and a card; return the folder.

    Args:
        net: its weights and its ``config``.
        folder: made if absent.
        **about: what else config.json keeps, plain types: size, made_by, data_hash, ...
    """
    version = installed_version(PACKAGE)
    saved = {"package": PACKAGE, "version": version, "limits": LIMITS, **about}
    save_model(net, folder, {**saved, "model": net.config})
    shown = {key: about.get(key, "not said") for key in ("size", "made_by", "data_hash")}
    card = CARD.format(version=version, limits=LIMITS, **shown, **net.config)
    write_text(Path(folder) / "README.md", card)
    return Path(folder)


def load_network(path: str | Path) -> tuple[CMDFDNet, dict[str, Any]]:
    """Return the network, in evaluation mode, and its configuration.

    Args:
        path: folder of a saved network, or of a run.

    Raises:
        DataError: missing, broken, or not this package's.
    """
    folder = find_saved(path)
    config = read_config(folder, package=PACKAGE, entries=("model",))
    if "classes" in config:
        raise DataError(f"{folder}: a teacher of cmdfd-teach; give a network of cmdfd-train")
    return build_saved(lambda: build_net(config["model"]), folder).eval(), config
