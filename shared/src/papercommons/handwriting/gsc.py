"""GSC-512: gradient, structural and concavity features of a word (Favata and Srikantan 1996).

The ink box is divided into 4 x 4 cells; each has 12 gradient, 12 structural and 8 concavity
densities. The rules follow the authors' table; thresholds and borders are our choice, as theirs
were never published.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from papercommons.errors import DataError

INK = 128  # grey values below are ink
GRIDS = ("equal", "mass")
CELLS = 16
CHUNK = 128  # images at a time, so that the maps stay in the cache

# Steps (down, right) to the neighbours N0 = E, N1 = NE, N2 = N, ... against the clock.
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
# Bins of the gradient that point up, down, left, right, and into the four quadrants.
_SETS = {
    "up": (2, 3, 4),
    "down": (8, 9, 10),
    "left": (5, 6, 7),
    "right": (11, 0, 1),
    "left-up": (4, 5, 6),
    "right-down": (10, 11, 0),
    "right-up": (1, 2, 3),
    "left-down": (7, 8, 9),
}
# A pixel fires a rule if two named neighbours have a gradient bin in the named set.
_RULES = (
    ((0, "up"), (4, "up")),  # horizontal stroke, two types
    ((0, "down"), (4, "down")),
    ((2, "left"), (6, "left")),  # vertical stroke
    ((2, "right"), (6, "right")),
    ((5, "left-up"), (1, "left-up")),  # rising diagonal
    ((5, "right-down"), (1, "right-down")),
    ((3, "right-up"), (7, "right-up")),  # falling diagonal
    ((3, "left-down"), (7, "left-down")),
    ((2, "left"), (0, "down")),  # four corners
    ((6, "left"), (0, "up")),
    ((4, "down"), (2, "right")),
    ((6, "right"), (4, "up")),
)
_NO_BIN = 12

FIXED_THRESHOLDS = np.concatenate(
    [np.full(192, 0.05), np.full(192, 0.02), np.tile([0.15] + [0.05] * 7, CELLS)]
).astype(np.float32)


def _set_table() -> np.ndarray:
    """Return of each bin (13) the sets that hold it, as bits in the order of `_SETS`, uint8."""
    table = np.zeros(13, np.uint8)
    for number, bins in enumerate(_SETS.values()):
        table[list(bins)] |= 1 << number
    return table


def _bin_table() -> np.ndarray:
    """Return the bin of each gradient (gy + 4, gx + 4), uint8; bin 12 is none."""
    gy, gx = np.mgrid[-4:5, -4:5]
    degrees = np.degrees(np.arctan2(gy, gx)) + 1e-3  # so that ties fall in the diagonals' middles
    bins = np.floor((degrees + 15) / 30).astype(int) % 12
    return np.where((gx == 0) & (gy == 0), _NO_BIN, bins).astype(np.uint8)


_IN_SETS = _set_table()
_SET_NUMBERS = {name: number for number, name in enumerate(_SETS)}
_BINS = _bin_table()


class _Cells(NamedTuple):
    """The 4 x 4 cells of a batch of ink boxes.

    Attributes:
        inside: pixels of the box, bool (N, H, W).
        number: of the cell of each pixel in the whole batch, int32 (N, H, W).
        row, column: number 0..3 of each row's and column's cell, (N, H) and (N, W).
        heights, widths: of the cells in pixels, int64 (N, 4).
    """

    inside: np.ndarray
    number: np.ndarray
    row: np.ndarray
    column: np.ndarray
    heights: np.ndarray
    widths: np.ndarray


def gsc_features(image: np.ndarray, *, grid: str = "equal", otsu: bool = False) -> np.ndarray:
    """Return the 512 GSC densities of a word, see `gsc_batch`.

    Args:
        image: uint8, shape (H, W), dark ink on white.
        grid: see `gsc_batch`.
        otsu: see `gsc_batch`.

    Returns:
        float32, shape (512,), values in [0, 1].

    Raises:
        ValueError: not a uint8 (H, W), or another grid.
        DataError: the image has no ink.
    """
    return gsc_batch(np.asarray(image)[None], grid=grid, otsu=otsu)[0]


def gsc_batch(images: np.ndarray, *, grid: str = "equal", otsu: bool = False) -> np.ndarray:
    """Return the 512 GSC densities of words: 192 gradient, 192 structural, 128 concavity.

    Each part goes cell by cell, row by row from the top left; a density is the share of the cell's
    pixels. Concavity: ink, horizontal and vertical strokes, open up, down, left, right, and holes.

    Args:
        images: uint8, shape (N, H, W), dark ink on white.
        grid: borders of the cells in the ink box: ``equal`` steps, or equal ink ``mass``.
        otsu: ink is what Otsu's threshold says for each image; else grey < 128.

    Returns:
        float32, shape (N, 512), values in [0, 1].

    Raises:
        ValueError: not a uint8 (N, H, W), or another grid.
        DataError: an image has no ink.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape[1:]:
        raise ValueError(f"images must be uint8 (N, H, W), got {images.dtype} {images.shape}")
    if grid not in GRIDS:
        raise ValueError(f"grid must be equal or mass, got {grid!r}")
    ink = images < _otsu(images)[:, None, None] if otsu else images < INK
    if not (some := ink.any((1, 2))).all():
        raise DataError(f"image {int(some.argmin())} has no ink; remove it, or darken it")
    features = np.empty((len(ink), 512), np.float32)
    start, height = _extent(ink.max(2))
    order = np.argsort(height)  # words of like height share a chunk, without the paper about them
    for chunk in np.split(order, range(CHUNK, len(order), CHUNK)):
        if len(chunk):
            place = np.arange(height[chunk].max())
            rows = np.minimum(start[chunk, None] + place, ink.shape[1] - 1)
            box = ink[chunk[:, None], rows] & (place < height[chunk, None])[:, :, None]
            features[chunk] = _features(box, grid)
    return features


def _extent(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the first and how far from it the last True of each row is, of (N, L)."""
    start = some.argmax(1)
    return start, some.shape[1] - some[:, ::-1].argmax(1) - start


def gsc_bits(features: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the bits: features > thresholds, compared in float32; bool, shape (..., 512).

    Args:
        features: densities, shape (..., 512).
        thresholds: `FIXED_THRESHOLDS`, or medians over the training images, shape (512,).
    """
    return np.asarray(features, np.float32) > np.asarray(thresholds, np.float32)


def bit_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how alike bits are: (1 + r) / 2 of Pearson's r, in [0, 1].

    Where a vector is constant: 1 if both are equal, else 1/2.

    Args:
        a: bool, shape (..., D).
        b: bool, of a shape that broadcasts with it.

    Returns:
        float64, shape (...).

    Raises:
        ValueError: not bool, or lengths differ.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != bool or b.dtype != bool or not a.ndim or a.shape[-1:] != b.shape[-1:]:
        raise ValueError(
            f"vectors must be bool of one length, got {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )
    s11, s10, s01 = (np.asarray((x & y).sum(-1), np.float64) for x, y in ((a, b), (a, ~b), (~a, b)))
    s00 = a.shape[-1] - s11 - s10 - s01
    margins = np.sqrt((s10 + s11) * (s01 + s00) * (s11 + s01) * (s00 + s10))
    equal = ((s10 + s01) == 0).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return 0.5 + 0.5 * np.where(margins > 0, (s11 * s00 - s10 * s01) / margins, equal)


def _otsu(images: np.ndarray) -> np.ndarray:
    """Return the grey value below which Otsu's method sees ink, for each image, (N,)."""
    from skimage.filters import threshold_otsu

    return np.array([float(threshold_otsu(image)) + 1 for image in images])


def _features(ink: np.ndarray, grid: str) -> np.ndarray:
    """Return the densities of a batch of ink maps, bool (N, H, W), as (N, 512)."""
    count = len(ink)
    cells = _cells(ink, grid)
    bins = np.where(cells.inside, _gradient_bins(ink), _NO_BIN)
    counts = (
        _gradient(bins, cells).reshape(count, CELLS, 12),
        _structural(bins, cells).reshape(count, CELLS, 12),
        _concavity(ink, cells).reshape(count, CELLS, 8),
    )
    area = (cells.heights[:, :, None] * cells.widths[:, None, :]).reshape(count, CELLS, 1)
    return np.concatenate([(c / np.maximum(area, 1)).reshape(count, -1) for c in counts], axis=1)


def _cells(ink: np.ndarray, grid: str) -> _Cells:
    """Divide the ink box of each image."""
    inside_row, row, heights = _divide(ink.sum(2), grid)
    inside_column, column, widths = _divide(ink.sum(1), grid)
    first = CELLS * np.arange(len(ink), dtype=np.int32)[:, None] + 4 * row
    number = (first[:, :, None] + column[:, None]).astype(np.int32)
    inside = inside_row[:, :, None] & inside_column[:, None]
    return _Cells(inside, number, row, column, heights, widths)


def _divide(mass: np.ndarray, grid: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each line whether it is in the box and its cell, (N, L), and cell sizes, (N, 4)."""
    length = mass.shape[1]
    start, extent = _extent(mass > 0)
    end = start + extent
    if grid == "equal":
        borders = start[:, None] + np.rint(np.arange(5) * (end - start)[:, None] / 4).astype(int)
    else:
        quarter = 4 * mass.cumsum(1)[:, :, None] < np.arange(1, 4) * mass.sum(1)[:, None, None]
        inner = np.maximum(quarter.sum(1) + 1, start[:, None])
        borders = np.column_stack([start, inner, end])
    place = np.arange(length)
    inside = (place >= start[:, None]) & (place < end[:, None])
    cell = (place[None, :, None] >= borders[:, None, 1:4]).sum(2)
    return inside, cell, np.diff(borders, axis=1)


def _gradient_bins(ink: np.ndarray) -> np.ndarray:
    """Return the bin of Sobel's gradient of each pixel, gy upwards, uint8 (N, H, W)."""
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1))).view(np.int8)
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    columns = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    gx = rows[:, :, 2:] - rows[:, :, :-2]
    gy = columns[:, :-2] - columns[:, 2:]
    return _BINS.ravel()[9 * gy + gx + 40]


def _count(cells: _Cells, mask: np.ndarray) -> np.ndarray:
    """Return how many pixels of the mask are in each cell of the batch, (N * 16,)."""
    return np.bincount(cells.number[mask], minlength=CELLS * len(mask))


def _gradient(bins: np.ndarray, cells: _Cells) -> np.ndarray:
    some = bins < _NO_BIN
    key = 12 * cells.number[some] + bins[some]
    return np.bincount(key, minlength=12 * CELLS * len(bins))


def _structural(bins: np.ndarray, cells: _Cells) -> np.ndarray:
    """Return how many pixels fire each rule in each cell, (N * 16, 12)."""
    height, width = bins.shape[1:]
    sets = np.pad(_IN_SETS[bins], ((0, 0), (1, 1), (1, 1)))
    fired = np.zeros(bins.shape, np.uint16)
    for rule, conditions in enumerate(_RULES):
        met = np.ones(bins.shape, np.uint8)
        for neighbour, name in conditions:
            down, right = _NEIGHBOURS[neighbour]
            beside = sets[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
            met &= beside >> _SET_NUMBERS[name]
        fired |= met.astype(np.uint16) << rule
    some = cells.inside & (fired > 0)
    rules = np.arange(len(_RULES), dtype=np.uint16)
    hits = (fired[some][:, None] >> rules & 1).astype(bool)
    key = (len(_RULES) * cells.number[some][:, None] + rules)[hits]
    return np.bincount(key, minlength=len(_RULES) * CELLS * len(bins))


def _concavity(ink: np.ndarray, cells: _Cells) -> np.ndarray:
    """Return the pixels of the eight concavity classes in each cell, (N * 16, 8)."""
    paper = cells.inside & ~ink
    west, east = _seen(ink)
    north, south = (seen.transpose(0, 2, 1) for seen in _seen(ink.transpose(0, 2, 1)))
    holes = _holes(ink)
    paper &= ~holes
    half_width = np.take_along_axis(cells.widths, cells.column, 1)[:, None, :] / 2
    half_height = np.take_along_axis(cells.heights, cells.row, 1)[:, :, None] / 2
    vertical = _runs(ink.transpose(0, 2, 1)).transpose(0, 2, 1)
    classes = (
        ink,
        ink & (_runs(ink) >= np.maximum(2, half_width)),
        ink & (vertical >= np.maximum(2, half_height)),
        paper & east & west & south & ~north,
        paper & east & west & north & ~south,
        paper & north & south & east & ~west,
        paper & north & south & west & ~east,
        holes,
    )
    return np.stack([_count(cells, mask) for mask in classes], axis=1)


def _seen(ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether a pixel has ink somewhere to its left, and to its right, (N, H, W)."""
    width = ink.shape[2]
    place = np.arange(width)
    some = ink.any(2)
    first = np.where(some, ink.argmax(2), width)
    last = np.where(some, width - 1 - ink[:, :, ::-1].argmax(2), -1)
    return place > first[:, :, None], place < last[:, :, None]


def _runs(ink: np.ndarray) -> np.ndarray:
    """Return the length of the horizontal ink run of each ink pixel, 0 on paper, (N, H, W)."""
    padded = np.pad(ink, ((0, 0), (0, 0), (1, 1)))
    edges = np.flatnonzero(np.diff(padded.view(np.int8).ravel()))  # begin and end in turn
    lengths = edges[1::2] - edges[::2]
    runs = np.zeros(ink.shape, np.int16)
    runs[ink] = np.repeat(lengths, lengths)
    return runs


def _holes(ink: np.ndarray) -> np.ndarray:
    """Return the paper that is not 4-connected to the outside, bool (N, H, W).

    The images stand below each other, each in a frame of paper: one outside for all.
    """
    from skimage.measure import label

    framed = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    regions = label(~framed.reshape(-1, framed.shape[2]), connectivity=1).reshape(framed.shape)
    return ~ink & (regions != regions[0, 0, 0])[:, 1:-1, 1:-1]
