"""Weights read without running code from the file, and plain models saved as safetensors.

A saved model is a folder with ``model.safetensors`` and ``config.json`` (its constructor's
arguments and what its input must look like), so it loads without this project too.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from papercommons.errors import DataError, reason
from papercommons.files import atomic_path, write_json
from papercommons.model_folders import check_model_folder

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_STATISTICS = ("running_mean", "running_var")  # of batch norm
_WEIGHT_FILES = frozenset((".safetensors", ".bin", ".pt", ".pth", ".ckpt"))
_SPARE = 20_000_000  # values, of layers that are built and then replaced
_EACH = 10_000  # values that building a parameter counts for, however few it holds

M = TypeVar("M", bound=nn.Module)


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
    other_types = [
        f"{name} {weights[name].dtype} instead of {own[name].dtype}"
        for name in own
        if name in weights and weights[name].is_floating_point() != own[name].is_floating_point()
    ]
    problems = [
        f"{label} {len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for label, names in (
            ("missing", [name for name in own if name not in weights]),
            ("unexpected", [name for name in weights if name not in own]),
            ("other shape", differing),
            ("other type", other_types),
        )
        if names
    ]
    if problems:
        raise DataError(
            f"{source}: does not fit {type(module).__name__}: {'; '.join(problems)}; "
            "check the model's name and the number of classes"
        )
    parameters = {name for name, _ in module.named_parameters()}
    finite = [n for n in weights if n in parameters or n.endswith(_STATISTICS)]
    if odd := [n for n in finite if not weights[n].to(own[n].dtype).isfinite().all()]:
        raise DataError(
            f"{source}: {odd[0]} holds values that are NaN or infinite, so the network gives no "
            "answer; train it again or take another checkpoint"
        )
    return weights


@contextmanager
def bounded_network(size: int, *, source: str | Path) -> Iterator[None]:
    """Stop the building of networks, in this context, far larger than the file of their weights.

    Args:
        size: of the file, bytes.
        source: where the network is described, for the message.

    Raises:
        DataError: the networks built have more than four values per byte, and some to spare.
    """
    left = 4 * size + _SPARE  # four-bit weights are two to a byte, and built before they are read

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        left -= parameter.numel() + _EACH
        if left < 0:
            raise DataError(
                f"{source}: config.json describes a network far larger than its file of weights "
                f"({size:,} bytes); give them as they were saved together"
            )

    handle = register_module_parameter_registration_hook(count)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def bounded_folder(source: str | Path) -> Iterator[None]:
    """Check a model's folder, and be `bounded_network` by all files of weights in it.

    Args:
        source: folder that a library is about to read, or a hub id, which is not bounded.

    Raises:
        DataError: see `papercommons.model_folders.check_model_folder` and `bounded_network`.
    """
    if not Path(source).is_dir():
        yield
        return
    check_model_folder(source)
    files = [path for path in Path(source).rglob("*") if path.suffix in _WEIGHT_FILES]
    with bounded_network(sum(path.stat().st_size for path in files), source=source):
        yield


def build_saved(make: Callable[[], M], folder: str | Path, *, part: str | None = None) -> M:
    """Return a network with the weights of a folder; sizes that these do not have take no memory.

    Args:
        make: the network that config.json describes.
        folder: with model.safetensors.
        part: see `read_state_dict`.

    Raises:
        DataError: config.json or weights are broken, or do not fit each other.
    """
    weights, source = read_state_dict(folder, part=part), str(folder)
    size = sum(weight.nbytes for weight in weights.values())
    try:
        with bounded_network(size, source=source):
            trial = _without_memory(make)
            if trial is not None:
                check_weights(trial, weights, source=source)
        with bounded_network(size, source=source):
            network = make()
    except DataError:
        raise
    except Exception as error:  # networks fail in many ways on sizes that are none
        raise DataError(f"{folder}/config.json: {reason(error)}") from error
    load_weights(network, weights, source=source)
    return network


def _without_memory(make: Callable[[], M]) -> M | None:
    """Return a network on the meta device; None where it cannot be built there."""
    try:
        with torch.device("meta"):
            return make()
    except DataError:
        raise
    except Exception:  # some of timm's read values as they are built
        return None


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
