"""Networks on disk: a folder with model.safetensors, config.json and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from papercommons.checkpoint import build_saved, read_config, save_model
from papercommons.errors import DataError
from papercommons.files import find_saved, write_text
from papercommons.versions import installed_version

from semforge.crop_settings import describe_crop
from semforge.graph import LabelGraph
from semforge.model import SemForgeNet
from semforge.options import PACKAGE

_NEEDED = ("backbone", "graph", "head", "embedding", "root_prior", "dropout", "image_size")

LIMITS = (
    "It looks for what its training images taught it. A forgery made in another way, strong "
    "compression or a poor crop can pass as real, and a real photo as fake: the result is a hint "
    "for a person to check, no proof. Attributes explain what the network responds to, not how an "
    "image was made."
)

CARD = """# Face forgery: {backbone}, {head} over the graph {graph}

Saved by semforge {version}. In Python: `semforge.load_network("FOLDER")`.

- Input: RGB face crops, float32 in [0, 1], (N, 3, {size}, {size}), normalised by `normalised`.
- Faces: {faces}.
- Output: scores (N, {count}) of {nodes}; `probabilities` makes them probabilities.
- Made by: {made_by}
- Trained on images with hash {data_hash}.
- Limits: {limits}
"""


def save_network(net: SemForgeNet, folder: str | Path, **about: Any) -> Path:
    """Write the network, what builds it again, and a card.

    Args:
        net: made from the name of a backbone.
        folder: made if absent.
        **about: what else config.json keeps, plain types: crop, made_by, data_hash, ...

    Raises:
        ValueError: the backbone is a module, which no name builds again.
    """
    if net.config is None:
        raise ValueError(
            f"a network on your own {type(net.scorer).__name__} module has no name to build it "
            "again; save its state dict"
        )
    version = installed_version(PACKAGE)
    save_model(net, folder, {**about, **net.config, "package": PACKAGE, "version": version})
    card = CARD.format(
        backbone=net.config["backbone"],
        head=net.config["head"],
        graph=net.graph.name,
        version=version,
        size=net.image_size,
        count=len(net.nodes),
        nodes=", ".join(net.nodes),
        faces=describe_crop(about["crop"]) if "crop" in about else "how they were cut is not said",
        limits=LIMITS,
        **{key: about.get(key, "not said") for key in ("made_by", "data_hash")},
    )
    write_text(Path(folder) / "README.md", card)
    return Path(folder)


def load_network(
    path: str | Path, *, graph: LabelGraph | None = None
) -> tuple[SemForgeNet, dict[str, Any]]:
    """Return the network, in evaluation mode, and its configuration.

    Args:
        path: folder of a saved network, or of a run.
        graph: what its graph must be; None takes any.

    Raises:
        DataError: missing, broken, not this package's, or made for another graph.
    """
    folder = find_saved(path)
    config = read_config(folder, package=PACKAGE, entries=_NEEDED)
    if not isinstance(config["graph"], dict):
        raise DataError(f"{folder}/config.json: graph: expected an object with nodes and rules")
    net = build_saved(lambda: SemForgeNet(**{key: config[key] for key in _NEEDED}), folder)
    if graph is not None and not _same_labels(net.graph, graph):
        raise DataError(
            f"{folder}: made for the graph {net.graph.name} with nodes {', '.join(net.nodes)}; "
            f"its rules or nodes differ from those of {graph.name}; give the graph it was made for"
        )
    return net.eval(), config


def _same_labels(a: LabelGraph, b: LabelGraph) -> bool:
    return a.nodes == b.nodes and a.states.equal(b.states)
