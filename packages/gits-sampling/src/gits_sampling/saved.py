"""Trained denoisers on disk: a folder with the averaged weights and what builds the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from papercommons.checkpoint import (
    bounded_network,
    build_saved,
    check_weights,
    read_config,
    read_torch_file,
    save_model,
)
from papercommons.errors import DataError, reason
from papercommons.versions import installed_version

from gits_sampling.lightning import GITSModule
from gits_sampling.options import PACKAGE
from gits_sampling.schedule import Schedule
from gits_sampling.unet import create_network

_SETTINGS = (
    "shape",
    "num_classes",
    "network_options",
    "sigma_data",
    "sigma_min",
    "sigma_max",
    "label_dropout",
)


def save_network(module: GITSModule, folder: str | Path, **about: Any) -> Path:
    """Write the averaged weights, config.json and schedule.json, and return the folder.

    Args:
        module: with a network by name.
        folder: made if absent.
        **about: what else config.json keeps, plain types: data_hash, classes, ...

    Raises:
        ValueError: the module was given a network object, which no name builds again.
    """
    name = module.hparams.get("network")
    if not isinstance(name, str):
        raise ValueError(f"network must be one by name to be saved, got {module.network_name}")
    settings = {key: getattr(module, key) for key in _SETTINGS}
    settings["shape"] = list(module.shape)
    version = installed_version(PACKAGE)
    config = {"network": name, "package": PACKAGE, "version": version}
    folder = save_model(module.average, folder, {**about, **config, **settings})
    module.schedule.save(folder / "schedule.json")
    return folder


def load_network(path: str | Path) -> GITSModule:
    """Return a trained module, in eval mode on the CPU.

    Args:
        path: a folder written by `save_network`, or a Lightning checkpoint (.ckpt) of a run.

    Raises:
        DataError: missing, broken, or something else.
    """
    path = Path(path)
    if path.is_file():
        return _load_checkpoint(path)
    config = read_config(path, package=PACKAGE, entries=("network", *_SETTINGS))
    if not isinstance(config["network"], str):
        raise DataError(f"{path}/config.json: network must be a name, got {config['network']!r}")
    sizes = [config[key] for key in ("shape", "num_classes", "network_options")]
    saved = build_saved(lambda: create_network(config["network"], *sizes), path)
    try:
        module = GITSModule(config["network"], **{key: config[key] for key in _SETTINGS})
    except (ArithmeticError, TypeError, ValueError) as error:
        raise DataError(f"{path}/config.json: {reason(error)}") from error
    for network in (module.average, module.network):
        network.load_state_dict(saved.state_dict())
    if (path / "schedule.json").is_file():
        module.schedule = Schedule.load(path / "schedule.json")
    return module.eval()


def _load_checkpoint(path: Path) -> GITSModule:
    state = read_torch_file(path, map_location="meta")
    if not isinstance(state, dict) or not {"state_dict", "gits_sampling"} <= state.keys():
        raise DataError(f"{path}: no checkpoint of gits-sampling-train")
    hyper = state.get("hyper_parameters")
    if not isinstance(hyper, dict) or not isinstance(hyper.get("network"), str):
        raise DataError(
            f"{path}: its network was given as an object; load it with "
            "GITSModule.load_from_checkpoint(path, network=...)"
        )
    try:
        with bounded_network(path.stat().st_size, source=path):
            module = GITSModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as error:  # what is not as it should be fails in many ways
        raise DataError(f"{path}: {reason(error)}") from error
    check_weights(module.average, module.average.state_dict(), source=str(path))
    return module.eval()
