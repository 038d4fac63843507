"""Forgeries whose labels are exact: an attribute is altered in chosen parts of a face (section 7).

An edit is rendered, gets the trace of a family of generators, and is blended in through the soft
masks of the chosen regions; nothing beyond them changes.
"""

from __future__ import annotations

import numpy as np
import torch

from semforge.augmentation import gaussian_blur
from semforge.fingerprints import FAMILIES, TRAIN_FAMILIES, UNSEEN_FAMILIES, fingerprint
from semforge.graph import LabelGraph
from semforge.regions import REGIONS, union

__all__ = ["FAMILIES", "KINDS", "TRAIN_FAMILIES", "UNSEEN_FAMILIES", "edit_face", "kinds_of"]

KINDS = ("expression", "age", "identity")


def kinds_of(graph: LabelGraph) -> dict[str, tuple[str, ...]]:
    """Return the attributes of a graph that can be altered, each with its regions.

    Args:
        graph: whose attributes have regions, see `LabelGraph.soft_or`.
    """
    known = {kind: graph.any_child.get(kind, ()) for kind in KINDS}
    found = {kind: tuple(r for r in regions if r in REGIONS) for kind, regions in known.items()}
    return {kind: regions for kind, regions in found.items() if regions}


def edit_face(
    image: np.ndarray,
    rng: np.random.Generator,
    graph: LabelGraph,
    *,
    kind: str,
    family: str,
    other: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a face with one attribute altered in a random choice of its regions, and its label.

    Args:
        image: RGB crop of a real face, see `semforge.regions`, uint8, shape (S, S, 3), S >= 32.
        rng: where chance comes from.
        graph: of the label.
        kind: the attribute: ``expression`` bends the regions, ``age`` smooths them or gives them
            texture, ``identity`` takes them from another face.
        family: of generators, see `semforge.fingerprints.fingerprint`.
        other: likewise, of another person; for ``identity``.

    Returns:
        uint8, shape (S, S, 3); and int8, shape (n,), with 1 for the root, the attribute and the
        regions chosen, else 0.

    Raises:
        ValueError: the graph has no such attribute with regions, no other face for ``identity``,
            or pictures not as described.
    """
    size = image.shape[0]
    for picture in (image, *([] if other is None else [other])):
        if picture.shape != (size, size, 3) or picture.dtype != np.uint8 or size < 32:
            raise ValueError(
                f"faces must be uint8 (S, S, 3) of one S >= 32, got {picture.dtype} {picture.shape}"
            )
    regions = kinds_of(graph).get(kind)
    if regions is None:
        raise ValueError(
            f"{graph.name} has no attribute {kind!r} whose regions can be altered; it has "
            f"{', '.join(kinds_of(graph)) or 'none'}"
        )
    chosen = _choose(regions, rng)
    mask = union(chosen, size)
    if kind == "expression":
        edited = bend(image, mask, rng)
    elif kind == "age":
        edited = smooth(image) if rng.random() < 0.5 else roughen(image, rng)
    elif other is None:
        raise ValueError("kind identity needs the face of another person")
    else:
        edited = match_colours(other, image, mask)
    traced = fingerprint(edited, family, rng)
    blended = image + mask[..., None] * (traced.astype(np.float32) - image)
    on = {graph.nodes[0], kind, *chosen}
    label = np.array([node in on for node in graph.nodes], np.int8)
    if not graph.is_legal(torch.from_numpy(label)[None])[0]:
        raise ValueError(f"{graph.name} forbids {kind} with {', '.join(chosen)} and nothing else")
    return np.rint(blended).clip(0, 255).astype(np.uint8), label


def _choose(regions: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """Return a random choice, each that is not empty as likely."""
    number = int(rng.integers(1, 1 << len(regions)))
    return tuple(region for place, region in enumerate(regions) if number >> place & 1)


def bend(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the face with its content moved smoothly within the mask, by up to 4.5 % of its side.

    Args:
        image: uint8, shape (S, S, 3).
        mask: float32 in [0, 1], shape (S, S).
        rng: where chance comes from.
    """
    from PIL import Image

    size = image.shape[0]
    moves = []
    for _ in range(2):
        coarse = Image.fromarray(rng.uniform(-1, 1, (6, 6)).astype(np.float32))
        fine = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
        moves.append(fine / np.abs(fine * mask).max() * rng.uniform(0.02, 0.045) * size * mask)
    y, x = np.mgrid[0:size, 0:size]
    return _sample(image, y + moves[0], x + moves[1])


def _sample(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the picture at places between pixels, bilinear, within its border."""
    last = image.shape[0] - 1
    y, x = y.clip(0, last), x.clip(0, last)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, last), np.minimum(left + 1, last)
    down, across = (y - top)[..., None], (x - left)[..., None]
    values = image.astype(np.float32)
    upper = values[top, left] * (1 - across) + values[top, right] * across
    lower = values[bottom, left] * (1 - across) + values[bottom, right] * across
    return np.rint(upper * (1 - down) + lower * down).clip(0, 255).astype(np.uint8)


def smooth(image: np.ndarray) -> np.ndarray:
    """Return the face without fine texture: younger.

    Args:
        image: uint8, shape (S, S, 3).
    """
    kernel = 2 * max(2, round(image.shape[0] / 24)) + 1
    return gaussian_blur(gaussian_blur(image, kernel), kernel)


def roughen(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the face with dark, mostly level creases: older.

    Args:
        image: uint8, shape (S, S, 3).
        rng: where chance comes from.
    """
    from PIL import Image

    size = image.shape[0]
    rows, columns = max(8, size // 3), max(3, size // 12)  # so creases are longer than high
    coarse = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
    creases = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    creases = creases - creases.mean()
    changed = image + (creases / creases.std() * rng.uniform(9, 16) - 6)[..., None]
    return np.rint(changed).clip(0, 255).astype(np.uint8)


def match_colours(face: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a face with the mean and spread that another has in each colour within a mask.

    Args:
        face: uint8, shape (S, S, 3).
        target: likewise.
        mask: float32 in [0, 1], shape (S, S), not all 0.
    """
    weights = mask[..., None] / mask.sum()

    def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = (values * weights).sum((0, 1))
        return mean, np.sqrt((np.square(values - mean) * weights).sum((0, 1)))

    (mean, spread), (wanted_mean, wanted_spread) = moments(face), moments(target)
    gain = np.clip(wanted_spread / np.maximum(spread, 1), 0.5, 2)
    matched = (face - mean) * gain + wanted_mean
    return np.rint(matched).clip(0, 255).astype(np.uint8)
