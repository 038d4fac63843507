"""Weights read without running code from the file, and plain models saved as safetensors.

A saved model is a folder with ``model.safetensors`` and ``config.json`` (its constructor's
arguments and what its input must look like), so it loads without this project too.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from papercommons.errors import DataError, reason
from papercommons.files import atomic_path, write_json

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read_state_dict(path: str | Path, *, part: str | None = None) -> dict[str, Tensor]:
    """Return the weights in a file, on the CPU, by plain name.

    Reads safetensors, and torch files with ``weights_only=True``. Wrappers such as ``{"model":
    ...}`` and prefixes such as ``module.`` that all names share are taken off; `load_weights` puts
    back what its module has.

    Args:
        path: a .safetensors file, or a .pt, .pth, .ckpt or .tar file of torch.save; a folder with
            model.safetensors.
        part: of a Lightning checkpoint, the attribute wanted (``student``), if it has one.

    Raises:
        DataError: the file is missing or broken, needs pickled code, or holds no weights.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a checkpoint (.safetensors, .pt, .pth, .ckpt)")
    if path.suffix.lower() == ".safetensors":
        try:
            state: Any = load_file(path)
        except Exception as error:  # readers fail in many ways on what is broken
            raise DataError(f"{path}: not a readable checkpoint ({reason(error)})") from error
    else:
        state = read_torch_file(path)
    for _ in _WRAPPERS:  # as deep as wrappers nest, and no deeper in a file that holds itself
        wrapped = state if isinstance(state, Mapping) else {}
        state = next((wrapped[w] for w in _WRAPPERS if isinstance(wrapped.get(w), Mapping)), state)
    weights = (
        {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
        if isinstance(state, Mapping)
        else {}
    )
    if not weights:
        raise DataError(f"{path}: holds no weights; expected a state dict (name -> tensor)")
    if part is not None and any(name.startswith(f"{part}.") for name in weights):
        weights = {name: value for name, value in weights.items() if name.startswith(f"{part}.")}
        weights = {name.removeprefix(f"{part}."): value for name, value in weights.items()}
    prefix = _shared_prefix(weights)
    return {name.removeprefix(prefix): value for name, value in weights.items()}


def read_torch_file(path: str | Path, *, map_location: str = "cpu") -> Any:
    """Return what torch.save wrote, if it is tensors and plain types; runs no code from the file.

    Args:
        path: a file that exists.
        map_location: where tensors go; ``meta`` reads their shapes only.

    Raises:
        DataError: the file is broken or needs pickled code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's guesses about what it then refuses
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: not read: it is no torch file of plain weights (loading it could run code "
            "from the file); save the state dict as .safetensors"
        ) from error
    except Exception as error:
        raise DataError(f"{path}: not a readable checkpoint ({reason(error)})") from error


def _shared_prefix(names: Iterable[str]) -> str:
    """Return the prefixes of wrappers that all names begin with, joined: ``module.model.``."""
    names, shared = list(names), ""
    while names and (
        found := [p for p in _PREFIXES if all(name.startswith(shared + p) for name in names)]
    ):
        shared += found[0]
    return shared


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Load `weights` into `module`; every name and shape must fit.

    Prefixes of wrappers, such as ``module.``, need not fit.

    Args:
        module: gets the weights in place.
        weights: by name.
        source: where they come from, for the message.

    Raises:
        DataError: names are missing or unexpected (the first five are listed), shapes differ, or
            a weight is NaN or infinite.
    """
    module.load_state_dict(_fitting(module, weights, source))


def check_weights(module: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Raise DataError where `load_weights` does; `module` stays as it is, on any device.

    On the device ``meta`` a network takes no memory, whatever sizes a file states for it.

    Args:
        module: see `load_weights`.
        weights: likewise.
        source: likewise.
    """
    _fitting(module, weights, source)


def _fitting(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the weights by the names that the module has for them."""
    own = module.state_dict()
    given, wanted = _shared_prefix(weights), _shared_prefix(own)
    weights = {wanted + name.removeprefix(given): value for name, value in weights.items()}
    differing = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [
        f"{label} {len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for label, names in (
            ("missing", [name for name in own if name not in weights]),
            ("unexpected", [name for name in weights if name not in own]),
            ("other shape", differing),
        )
        if names
    ]
    if problems:
        raise DataError(
            f"{source}: does not fit {type(module).__name__}: {'; '.join(problems)}; "
            "check the model's name and the number of classes"
        )
    if odd := [name for name, _ in module.named_parameters() if not weights[name].isfinite().all()]:
        raise DataError(
            f"{source}: {odd[0]} holds values that are NaN or infinite, so the network gives no "
            "answer; train it again or take another checkpoint"
        )
    return weights


def save_model(module: nn.Module, folder: str | Path, config: Mapping[str, Any]) -> Path:
    """Write model.safetensors and config.json into `folder`, and return the folder.

    Args:
        module: its state dict is saved, contiguous and on the CPU.
        folder: made if absent.
        config: what is needed to build the module again and to feed it; plain types.
    """
    folder = Path(folder)
    weights = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in module.state_dict().items()
    }
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    write_json(folder / "config.json", dict(config))
    return folder


def read_config(
    folder: str | Path, *, package: str | None = None, entries: Sequence[str] = ()
) -> dict[str, Any]:
    """Return config.json of a saved model.

    Args:
        folder: written by `save_model`.
        package: which must have saved it; None takes any.
        entries: that it must have.

    Raises:
        DataError: the folder or the file is missing, it is not a JSON object, another package's,
            or lacks an entry.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise DataError(f"{folder}: no saved model: config.json is missing")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested without end
        raise DataError(f"{path}: not readable JSON ({reason(error)})") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: expected a JSON object")
    if package is not None and config.get("package") != package:
        raise DataError(
            f"{path}: entry package: expected {package}, got {config.get('package')!r}; give a "
            f"network that {package} saved"
        )
    if missing := [name for name in entries if name not in config]:
        raise DataError(f"{path}: no entry {', '.join(missing)}; give a whole saved network")
    return config
