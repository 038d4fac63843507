"""Fills a hole with patches of the same picture: PatchMatch under an image pyramid.

After Wexler et al. 2007 (coherence of all patches, coarse to fine) and Barnes et al. 2009 (nearest
patches by propagation and random search), with all pixels updated at once. Own code: it leaves the
traces of copying that such tools leave, and needs nothing but NumPy and Pillow.
"""

from __future__ import annotations

import numpy as np
from papercommons.errors import DataError

RADII = (3, 1)  # patches are 7 x 7, or 3 x 3 where no larger one is whole
COARSEST = 24  # pixels of the shorter side of the smallest picture
ROUNDS = 4  # of matching and voting per level
LAST_ROUNDS = 2  # at the full size, where they cost most


def patch_fill(photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture with its hole filled by copied patches; outside nothing changes.

    Args:
        photo: uint8, shape (H, W, 3), sides >= 16.
        mask: bool, shape (H, W), True where to fill.
        rng: where chance comes from.

    Returns:
        uint8, shape (H, W, 3).

    Raises:
        DataError: hardly any patch without a masked pixel is left to copy from.
    """
    radius = next((r for r in RADII if _sources(mask, r).any()), None)
    if radius is None:
        raise DataError("the mask leaves no unmasked patch of 3x3 pixels to copy from")
    levels = [(photo.astype(np.float32), mask)]
    while min(levels[-1][1].shape) >= 2 * COARSEST:
        smaller = _halve(*levels[-1])
        if not _sources(smaller[1], radius).any():
            break
        levels.append(smaller)
    field = None
    for level, (known, hole) in reversed(list(enumerate(levels))):
        matcher = _Matcher(known, hole, radius, rng)
        if field is None:
            matcher.picture[hole] = _smooth(known, hole)
        else:
            matcher.start(field)
        rounds = ROUNDS if level else LAST_ROUNDS
        for number in range(rounds):
            matcher.match()
            matcher.vote(alone=not level and number == rounds - 1)
        field = matcher.field()
    filled = photo.copy()
    filled[mask] = np.clip(np.rint(matcher.picture[mask]), 0, 255).astype(np.uint8)
    return filled


def _halve(picture: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means of the known pixels of 2x2 cells; a cell is a hole if one of its pixels is."""
    height, width = hole.shape[0] // 2, hole.shape[1] // 2
    cells = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean((1, 3))
    holes = np.any(hole[: 2 * height, : 2 * width].reshape(height, 2, width, 2), axis=(1, 3))
    return cells, holes


def _grow(hole: np.ndarray, radius: int) -> np.ndarray:
    """Return the pixels whose patch has a masked pixel."""
    from PIL import Image, ImageFilter

    image = Image.fromarray(hole.astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.MaxFilter(2 * radius + 1))).astype(bool)


def _sources(hole: np.ndarray, radius: int) -> np.ndarray:
    """Return the pixels whose patch lies inside the picture and outside the hole."""
    inside = np.zeros(hole.shape, dtype=bool)
    inside[radius:-radius, radius:-radius] = True
    return inside & ~_grow(hole, radius)


def _smooth(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return values for a hole that diffuse from its edge, shape (n, 3)."""
    weight = (~hole).astype(np.float32)[..., None]
    values = picture * weight
    for _ in range(max(hole.shape)):
        padded = np.pad(np.concatenate([values, weight], 2), [(1, 1), (1, 1), (0, 0)], mode="edge")
        total = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        mean = total[..., :3] / np.maximum(total[..., 3:], 1e-6)
        found = hole & (total[..., 3] > 0)
        values[found], weight[found] = mean[found], 1
    return values[hole]


class _Matcher:
    """The nearest patch of every target at one level of the pyramid.

    Args:
        known: float32, shape (H, W, 3).
        hole: bool, shape (H, W).
        radius: of patches.
        rng: where chance comes from.

    Attributes:
        picture: the current picture.
    """

    def __init__(
        self, known: np.ndarray, hole: np.ndarray, radius: int, rng: np.random.Generator
    ) -> None:
        self.picture, self.hole, self.radius, self.rng = known.copy(), hole, radius, rng
        self.shape = np.array(hole.shape)
        self.valid = _sources(hole, radius)
        self.choices = np.argwhere(self.valid)
        self.targets = np.argwhere(_grow(hole, radius))
        self.number = np.full(hole.shape, -1)
        self.number[tuple(self.targets.T)] = np.arange(len(self.targets))
        steps = np.arange(-radius, radius + 1)
        self.offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
        self.nearest = self._random(len(self.targets))
        self.distance = np.full(len(self.targets), np.inf, dtype=np.float32)

    def _random(self, count: int) -> np.ndarray:
        return self.choices[self.rng.integers(len(self.choices), size=count)]

    def field(self) -> np.ndarray:
        """Return for every pixel where its patch comes from; -1 where it has none."""
        field = np.full((*self.shape, 2), -1)
        field[tuple(self.targets.T)] = self.nearest
        return field

    def start(self, field: np.ndarray) -> None:
        """Begin with the matches of the level of half the size, and fill the hole from them."""
        parent = np.minimum(self.targets // 2, np.array(field.shape[:2]) - 1)
        taken = field[tuple(parent.T)]
        self._take((taken >= 0).all(1), 2 * taken + self.targets % 2)
        self.distance[:] = 1
        self.vote()

    def _take(self, where: np.ndarray, candidates: np.ndarray) -> None:
        usable = where & self._is_valid(candidates)
        self.nearest[usable] = candidates[usable]

    def _is_valid(self, places: np.ndarray) -> np.ndarray:
        inside = ((places >= 0) & (places < self.shape)).all(1)
        clipped = np.clip(places, 0, self.shape - 1)
        return inside & self.valid[tuple(clipped.T)]

    def match(self) -> None:
        """Improve all matches: those of neighbours, shifted alike, then random ones around."""
        edge = (self.radius, self.radius)
        padded = np.pad(self.picture, [edge, edge, (0, 0)], mode="reflect")
        self._flat, self._width = padded.reshape(-1, 3), padded.shape[1]
        self._own = self._patches(self.targets)
        self.distance = self._distances(np.arange(len(self.targets)), self.nearest)
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            neighbour = np.clip(self.targets - shift, 0, self.shape - 1)
            number = self.number[tuple(neighbour.T)]
            candidates = self.nearest[number] + self.targets - self.targets[number]
            self._improve(number >= 0, candidates)
        reach = int(self.shape.max())
        while reach >= 1:
            around = self.rng.integers(-reach, reach + 1, size=self.targets.shape)
            self._improve(np.ones(len(self.targets), dtype=bool), self.nearest + around)
            reach //= 3

    def _improve(self, where: np.ndarray, candidates: np.ndarray) -> None:
        chosen = np.flatnonzero(where & self._is_valid(candidates))
        distance = self._distances(chosen, candidates[chosen])
        better = distance < self.distance[chosen]
        self.nearest[chosen[better]] = candidates[chosen[better]]
        self.distance[chosen[better]] = distance[better]

    def _patches(self, places: np.ndarray) -> np.ndarray:
        corner = places[:, 0] * self._width + places[:, 1]
        steps = (self.offsets + self.radius) @ [self._width, 1]
        return self._flat.take(corner[:, None] + steps, axis=0)

    def _distances(self, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        difference = self._patches(places)
        difference -= self._own.take(numbers, axis=0)
        flat = difference.reshape(len(places), 3 * len(self.offsets))
        return np.einsum("nk,nk->n", flat, flat)

    def vote(self, *, alone: bool = False) -> None:
        """Fill the hole with weighted means of all patches over a pixel, or its own patch alone."""
        if alone:
            own = self.hole[tuple(self.targets.T)]
            self.picture[tuple(self.targets[own].T)] = self.picture[tuple(self.nearest[own].T)]
            return
        spread = max(float(np.quantile(self.distance, 0.75)), 1e-6)
        weight = np.exp(-self.distance / spread).astype(np.float32)
        to = (self.targets[:, None] + self.offsets).reshape(-1, 2)
        origin = (self.nearest[:, None] + self.offsets).reshape(-1, 2)
        inside = ((to >= 0) & (to < self.shape)).all(1)
        to, origin = to[inside], origin[inside]
        weights = np.repeat(weight, len(self.offsets))[inside]
        cell = to[:, 0] * self.shape[1] + to[:, 1]
        size = int(self.shape.prod())
        total = np.bincount(cell, weights, size)
        values = self.picture[tuple(origin.T)]
        sums = [np.bincount(cell, weights * values[:, k], size) for k in range(3)]
        mean = np.stack(sums, 1) / np.maximum(total, 1e-12)[:, None]
        self.picture[self.hole] = mean.reshape(*self.shape, 3)[self.hole]
