"""Saved networks that are not what they were."""

from pathlib import Path


def change_network(folder: Path) -> None:
    """Change one weight of a saved network, in place.

    Args:
        folder: of the saved network, or of the run that made it.
    """
    from safetensors.torch import load_file, save_file

    from papercommons.files import find_saved

    file = find_saved(folder) / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name] = tensors[name] + 0.01
    save_file(tensors, file)
