"""`gsc_batch` on 1,000 images against a loop over their pixels, as the definition reads.

``python -m pytest packages/ssl-hv/bench/bench_gsc.py -s``. The features of both are tested to be
equal; times and memory are only printed. The loop is timed on some of the images.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from papercommons.handwriting.gsc import gsc_batch
from papercommons.testing.timing import compare_speed, peak_memory

DATA = Path(__file__).parents[1] / "tests" / "data" / "gsc.npz"
COUNT, LOOPED = 1000, 20

NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
RULES = (
    *((0, {2, 3, 4}, 4, {2, 3, 4}), (0, {8, 9, 10}, 4, {8, 9, 10})),
    *((2, {5, 6, 7}, 6, {5, 6, 7}), (2, {11, 0, 1}, 6, {11, 0, 1})),
    *((5, {4, 5, 6}, 1, {4, 5, 6}), (5, {10, 11, 0}, 1, {10, 11, 0})),
    *((3, {1, 2, 3}, 7, {1, 2, 3}), (3, {7, 8, 9}, 7, {7, 8, 9})),
    *((2, {5, 6, 7}, 0, {8, 9, 10}), (6, {5, 6, 7}, 0, {2, 3, 4})),
    *((4, {8, 9, 10}, 2, {11, 0, 1}), (6, {11, 0, 1}, 4, {2, 3, 4})),
)


class PlainWord:
    """The ink box of one image as lists of booleans, looked at pixel by pixel."""

    def __init__(self, image):
        ink = image < 128
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        self.ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].tolist()
        self.height, self.width = len(self.ink), len(self.ink[0])
        self.outside = self.flood()
        self.bins = [[self.bin(r, c) for c in range(self.width)] for r in range(self.height)]

    def at(self, r, c):
        return 0 <= r < self.height and 0 <= c < self.width and self.ink[r][c]

    def flood(self):
        """Return the paper that is reached from outside the box, over edges."""
        seen, waiting = {(-1, -1)}, [(-1, -1)]
        while waiting:
            r, c = waiting.pop()
            for place in ((r, c + 1), (r - 1, c), (r, c - 1), (r + 1, c)):
                inside = -1 <= place[0] <= self.height and -1 <= place[1] <= self.width
                if inside and place not in seen and not self.at(*place):
                    seen.add(place)
                    waiting.append(place)
        return seen

    def bin(self, r, c):
        ink = self.at
        gx = sum(w * (ink(r + d, c + 1) - ink(r + d, c - 1)) for d, w in ((-1, 1), (0, 2), (1, 1)))
        gy = sum(w * (ink(r - 1, c + d) - ink(r + 1, c + d)) for d, w in ((-1, 1), (0, 2), (1, 1)))
        if gx == gy == 0:
            return None
        return math.floor((math.degrees(math.atan2(gy, gx)) + 1e-3 + 15) / 30) % 12

    def bin_beside(self, r, c, neighbour):
        r, c = r + NEIGHBOURS[neighbour][0], c + NEIGHBOURS[neighbour][1]
        return self.bins[r][c] if 0 <= r < self.height and 0 <= c < self.width else None

    def run(self, r, c, down, right):
        """Return the length of the ink run through a pixel."""
        length = 1
        for sign in (-1, 1):
            step = sign
            while self.at(r + step * down, c + step * right):
                length, step = length + 1, step + sign
        return length

    def concavity(self, r, c, cell_height, cell_width):
        if self.ink[r][c]:
            horizontal = self.run(r, c, 0, 1) >= max(2, cell_width / 2)
            return [True, horizontal, self.run(r, c, 1, 0) >= max(2, cell_height / 2), *[False] * 5]
        if (r, c) not in self.outside:
            return [False] * 7 + [True]
        east, west = any(self.ink[r][c + 1 :]), any(self.ink[r][:c])
        north = any(self.ink[i][c] for i in range(r))
        south = any(self.ink[i][c] for i in range(r + 1, self.height))
        up, down = east and west and south and not north, east and west and north and not south
        left, right = north and south and east and not west, north and south and west and not east
        return [False] * 3 + [up, down, left, right, False]

    def features(self):
        rows = [round(i * self.height / 4) for i in range(5)]
        columns = [round(i * self.width / 4) for i in range(5)]
        gradient, structural = np.zeros((16, 12)), np.zeros((16, 12))
        concavity = np.zeros((16, 8))
        for cell in range(16):
            (top, bottom), (left, right) = rows[cell // 4 :][:2], columns[cell % 4 :][:2]
            area = max(1, (bottom - top) * (right - left))
            for r in range(top, bottom):
                for c in range(left, right):
                    if self.bins[r][c] is not None:
                        gradient[cell, self.bins[r][c]] += 1
                    for rule, (one, of_one, two, of_two) in enumerate(RULES):
                        if self.bin_beside(r, c, one) in of_one:
                            structural[cell, rule] += self.bin_beside(r, c, two) in of_two
                    concavity[cell] += self.concavity(r, c, bottom - top, right - left)
            for part in (gradient, structural, concavity):
                part[cell] /= area
        return np.concatenate([gradient.ravel(), structural.ravel(), concavity.ravel()])


def plain_gsc(images):
    return np.stack([PlainWord(image).features() for image in images]).astype(np.float32)


def words():
    """1,000 images: 20 real words, moved and thickened so that none is like another."""
    with np.load(DATA) as file:
        images = file["images"][:20]
    random = np.random.default_rng(0)
    made = []
    for number in range(COUNT):
        image = np.roll(images[number % 20], random.integers(-9, 9), axis=1)
        made.append(np.minimum(image, np.roll(image, random.integers(0, 3), axis=0)))
    return np.stack(made)


def test_gsc(record):
    images = words()
    np.testing.assert_array_equal(gsc_batch(images[:LOOPED]), plain_gsc(images[:LOOPED]))
    speed = compare_speed(lambda: gsc_batch(images), lambda: plain_gsc(images[:LOOPED]), rounds=3)
    scale = COUNT / LOOPED
    memory = peak_memory(lambda: gsc_batch(images)) / 2**20
    record(
        measured=f"GSC-512, {COUNT / speed.ours_s:,.0f} images/s",
        size=f"{COUNT:,} images of 64 x 64",
        ours=f"{speed.ours_s:.2f} s, {memory:.0f} MiB",
        plain=f"{scale * speed.reference_s:.1f} s (from {LOOPED} images)",
        ratio=round(scale * speed.ratio, 1),
        lowest=round(scale * speed.ratio_low, 1),
        highest=round(scale * speed.ratio_high, 1),
        memory=None,
    )
