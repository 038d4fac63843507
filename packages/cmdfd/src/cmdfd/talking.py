"""Drawn people who talk: looks and voices by chance, and frames of a face whose mouth moves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cmdfd.mouths import OPENING, TEETH, TONGUE, WIDTH
from cmdfd.speech import VARIANTS, Voice

# Drawn at twice the size in coordinates of the head: -1 to 1 across the picture, y downwards.
_MOUTH_BOX = (0.20, 0.86, -0.46, 0.46)  # top, bottom, left, right of what moves


@dataclass(frozen=True)
class Speaker:
    """Somebody with a voice and a face.

    Attributes:
        name: of the person.
        voice: how they sound.
        skin: colour, 0 to 1, RGB.
        lips: likewise.
        hair: likewise.
        face: half width and half height of the face.
        mouth: half width of the lips at rest, how far the jaw opens, thickness of the lips.
        eyes: distance from the middle, height, size.
        brow: thickness of the brows.
        fringe: how far the hair comes down.
        lead: seconds by which the mouth is ahead of the sound.
        smoothing: of the mouth's movement in seconds.
    """

    name: str
    voice: Voice
    skin: tuple[float, float, float]
    lips: tuple[float, float, float]
    hair: tuple[float, float, float]
    face: tuple[float, float]
    mouth: tuple[float, float, float]
    eyes: tuple[float, float, float]
    brow: float
    fringe: float
    lead: float
    smoothing: float


def make_speaker(number: int, seed: int = 0) -> Speaker:
    """Return a person; the same number and seed give the same.

    Args:
        number: of the person, >= 0.
        seed: of all people.
    """
    rng = np.random.default_rng((seed, 7, number))

    def within(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    tone = within(0, 1)
    light, dark = np.array([0.95, 0.79, 0.68]), np.array([0.42, 0.27, 0.19])
    skin = light + (dark - light) * tone + rng.uniform(-0.03, 0.03, 3)
    lips = skin * np.array([0.86, 0.58, 0.6]) + np.array([within(0.02, 0.12), 0, 0.02])
    hair = np.array([0.2, 0.13, 0.08]) * within(0.3, 2.2) + within(0, 0.25) * (tone < 0.4)
    voice = Voice(
        VARIANTS[(number + int(rng.integers(3)) * 12) % len(VARIANTS)],
        int(rng.integers(135, 186)),
        int(rng.integers(30, 71)),
        int(rng.integers(35, 66)),
    )
    return Speaker(
        name=f"p{number:04d}",
        voice=voice,
        skin=_colour(skin),
        lips=_colour(lips),
        hair=_colour(hair),
        face=(within(0.54, 0.64), within(0.72, 0.80)),
        mouth=(within(0.22, 0.29), within(0.17, 0.23), within(0.04, 0.065)),
        eyes=(within(0.21, 0.26), within(-0.22, -0.15), within(0.085, 0.11)),
        brow=within(0.015, 0.035),
        fringe=within(-0.62, -0.42),
        lead=within(0.0, 0.04),
        smoothing=within(0.028, 0.042),
    )


def _colour(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = values.clip(0.02, 0.98).tolist()
    return red, green, blue


def film(
    speaker: Speaker,
    mouths: np.ndarray,
    rng: np.random.Generator,
    *,
    size: int = 112,
    patched: np.ndarray | None = None,
) -> np.ndarray:
    """Return the frames of somebody's face.

    Light, background, pose, blinking and the camera's noise follow from `rng`; as much of it is
    used whatever the mouth does.

    Args:
        speaker: who is seen.
        mouths: see `cmdfd.mouths`, shape (T, 4).
        rng: chance.
        size: S, side in pixels, even, >= 32.
        patched: 0 to 1 per frame, shape (T,): how much of a generator's trace the mouth shows, a
            square that is a little too coarse and too light. None is nowhere.

    Returns:
        RGB, uint8, shape (T, S, S, 3).
    """
    from PIL import Image

    count = len(mouths)
    canvas = _Canvas(2 * size)
    seen, blinking = _still(canvas, speaker, rng)
    top, bottom, left, right = canvas.box
    moving = _moving(canvas, speaker, seen[top:bottom, left:right], mouths)
    if patched is not None:
        moving = _patched(moving, patched[:, None, None, None])
    light = 255 * float(rng.uniform(0.8, 1.1))
    stills = [(light * still).clip(0, 255).astype(np.uint8) for still in (seen, blinking)]
    moving = (light * moving).clip(0, 255).astype(np.uint8)
    edge = size // 4
    pose = _pose(count, rng)
    blinks = _blinks(count, rng)
    noise = float(rng.uniform(1.5, 4.5))
    frames = np.empty((count, size, size, 3), np.uint8)
    for k in range(count):
        whole = stills[int(blinks[k])].copy()
        whole[top:bottom, left:right] = moving[k]
        picture = Image.fromarray(np.pad(whole, ((edge, edge), (edge, edge), (0, 0)), "edge"))
        turned = picture.transform(
            (2 * size, 2 * size),
            Image.Transform.AFFINE,
            _affine(pose[k], size, edge),
            Image.Resampling.BILINEAR,
        )
        frames[k] = np.asarray(turned.reduce(2))
    grain = rng.standard_normal(frames.shape[:3], np.float32) * noise
    return (frames + grain[..., None] + 0.5).clip(0, 255).astype(np.uint8)


class _Canvas:
    """Coordinates of a square picture.

    Args:
        side: in pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        line = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
        self.x, self.y = line[None, :], line[:, None]
        self.box = tuple(round((edge + 1) / 2 * side) for edge in _MOUTH_BOX)

    @cached_property
    def mouth_x(self) -> np.ndarray:
        """Abscissae of the part that moves, shape (1, 1, w)."""
        return self.x[None, :, self.box[2] : self.box[3]]

    @cached_property
    def mouth_y(self) -> np.ndarray:
        """Ordinates of the part that moves, shape (1, h, 1)."""
        return self.y[None, self.box[0] : self.box[1]]

    def soft(self, inside: np.ndarray) -> np.ndarray:
        """Return how much of each pixel is inside: 0 to 1, from a signed distance."""
        return (0.5 + inside * (self.side / 2)).clip(0, 1)

    def oval(self, x: float, y: float, a: float, b: float) -> np.ndarray:
        """Return the mask of an ellipse."""
        u, v = (self.x - x) / a, (self.y - y) / b
        return self.soft((1 - np.sqrt(u * u + v * v)) * min(a, b))


def _still(
    canvas: _Canvas, speaker: Speaker, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return what does not move, with eyes open and with eyes shut, float (2S, 2S, 3)."""
    x, y = canvas.x, canvas.y
    skin, hair = np.array(speaker.skin), np.array(speaker.hair)
    wall = rng.uniform(0.15, 0.85) + rng.uniform(-0.12, 0.12, 3)
    shirt = rng.uniform(0.05, 0.9, 3)
    slope = rng.uniform(-0.15, 0.15, 2)
    side = float(rng.uniform(-0.18, 0.18))
    image = wall + (slope[0] * x + slope[1] * y)[..., None]
    a, b = speaker.face
    image = _over(image, hair, canvas.oval(0, -0.12, a + 0.1, b + 0.08))
    image = _over(image, 0.85 * skin, canvas.oval(0, 0.75, 0.3, 0.5))
    image = _over(image, shirt, canvas.oval(0, 1.25, 0.95, 0.42))
    shade = (1 + side * x - 0.12 * y - 0.2 * (x / a) ** 4)[..., None]
    for ear in (-a, a):
        image = _over(image, 0.85 * skin, canvas.oval(ear, -0.05, 0.07, 0.14))
    image = _over(image, skin * shade, canvas.oval(0, 0.02, a, b))
    fringe = canvas.oval(0, -0.12, a + 0.1, b + 0.08) * canvas.soft(speaker.fringe - y + 0.2 * x**2)
    image = _over(image, hair, fringe)
    nose = np.exp(-(((np.abs(x) - 0.07) / 0.025) ** 2) - ((y - 0.13) / 0.05) ** 2)
    ridge = np.exp(-(((x - 0.06) / 0.03) ** 2) - ((y + 0.03) / 0.14) ** 2)
    image = image * (1 - 0.45 * nose - 0.12 * ridge)[..., None]
    gap, height, eye = speaker.eyes
    shut = image
    for place in (-gap, gap):
        brow = np.exp(-(((y - height + 0.15 + 0.8 * (x - place) ** 2) / speaker.brow) ** 2))
        across = canvas.soft(0.13 - np.abs(x - place))
        image = _over(image, 0.8 * hair, 0.85 * brow * across)
        shut = _over(shut, 0.8 * hair, 0.85 * brow * across)
        white = canvas.oval(place, height, eye, 0.55 * eye)
        image = _over(image, np.array([0.93, 0.92, 0.9]), white)
        image = _over(
            image, 0.5 * hair + 0.1, white * canvas.oval(place, height, 0.5 * eye, 0.5 * eye)
        )
        image = _over(image, np.full(3, 0.04), canvas.oval(place, height, 0.24 * eye, 0.24 * eye))
        lid = np.exp(-(((y - height - 1.5 * (eye**2 - (x - place) ** 2)) / 0.014) ** 2))
        shut = _over(shut, 0.4 * skin, lid * canvas.soft(eye - np.abs(x - place)))
    return image.astype(np.float32), shut.astype(np.float32)


def _moving(canvas: _Canvas, speaker: Speaker, skin: np.ndarray, mouths: np.ndarray) -> np.ndarray:
    """Return the part around the mouth in each frame, float32 (T, h, w, 3)."""
    x, y = canvas.mouth_x, canvas.mouth_y
    values = mouths.astype(np.float32)[:, :, None, None]
    opening, width, teeth, tongue = (values[:, k] for k in (OPENING, WIDTH, TEETH, TONGUE))
    half, drop, lip = speaker.mouth
    w = half * (0.55 + 0.75 * width)
    gap = drop * opening + 0.004
    thick = lip * (1.25 - 0.5 * width)
    upper, lower = 0.42 - 0.22 * gap, 0.42 + 0.78 * gap  # edges of the opening, in the middle
    arch = (1 - (x / w) ** 2).clip(0)
    curve = np.sqrt(arch)
    bow = 0.25 * lip * np.exp(-((x / 0.035) ** 2))  # the notch of the upper lip
    inner_top, inner_bottom = 0.42 + (upper - 0.42) * curve, 0.42 + (lower - 0.42) * curve
    outer_top = inner_top - thick * curve + bow * (arch > 0)
    outer_bottom = inner_bottom + 1.25 * thick * curve
    within = canvas.soft(w - np.abs(x))
    lips = within * canvas.soft(y - outer_top) * canvas.soft(outer_bottom - y)
    hole = within * canvas.soft(y - inner_top) * canvas.soft(inner_bottom - y)
    image = np.repeat(skin[None], len(mouths), axis=0)
    chin = np.exp(-(((y - 0.60 - 0.5 * gap + 0.5 * x**2) / 0.025) ** 2) - (x / 0.16) ** 2)
    fold = np.exp(-(((np.abs(x) - w - 0.05 - 0.15 * (y - 0.3)) / 0.02) ** 2)) * canvas.soft(0.5 - y)
    image *= (1 - 0.16 * chin - (0.05 + 0.12 * width) * fold)[..., None]
    colour = np.array(speaker.lips, np.float32)
    sheen = 1 + 0.25 * np.exp(-(((y - inner_bottom - 0.5 * thick) / 0.015) ** 2))
    image += (colour * sheen[..., None] - image) * lips[..., None]
    image += (np.array([0.13, 0.04, 0.05], np.float32) - image) * hole[..., None]
    tip = inner_bottom - 0.75 * gap * tongue
    flesh = hole * canvas.soft(y - tip) * canvas.soft(0.75 * w - np.abs(x)) * (tongue > 0.02)
    image += (np.array([0.72, 0.36, 0.36], np.float32) - image) * (0.9 * flesh)[..., None]
    row = hole * canvas.soft(inner_top + 0.055 * teeth - y) * canvas.soft(0.85 * w - np.abs(x))
    image += (np.array([0.93, 0.91, 0.85], np.float32) - image) * (row * (2 * teeth).clip(0, 1))[
        ..., None
    ]
    return image


def _patched(moving: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Return the part around the mouth as a coarse generator would have pasted it in."""
    count, height, width, _ = moving.shape
    step = max(2, round(width / 24))
    top, left = height // 16, width // 8
    rows, columns = (height * 3 // 4) // step * step, (width * 3 // 4) // step * step
    square = moving[:, top : top + rows, left : left + columns]
    coarse = square.reshape(count, rows // step, step, columns // step, step, 3).mean((2, 4))
    coarse = coarse.repeat(step, axis=1).repeat(step, axis=2)
    found = moving.copy()
    found[:, top : top + rows, left : left + columns] += amount * (coarse + 0.03 - square)
    return found


def _over(image: np.ndarray, colour: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return image + (colour - image) * mask[..., None]


def _wander(count: int, rng: np.random.Generator, scale: float, reach: int = 12) -> np.ndarray:
    """Return a slow random movement around 0."""
    window = np.hanning(2 * reach + 1)
    steps = rng.standard_normal(count + 2 * reach)
    return scale * np.convolve(steps, window / np.sqrt((window**2).sum()), "valid")


def _pose(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the head's shift (pixels of 112), turn (radians) and scale in each frame, (T, 4)."""
    moves = (_wander(count, rng, scale) for scale in (1.2, 1.0, 0.02, 0.01))
    around = np.array([*rng.uniform(-4, 4, 2), rng.uniform(-0.06, 0.06), rng.uniform(0.94, 1.1)])
    return np.stack(list(moves), axis=1) + around


def _affine(pose: np.ndarray, size: int, edge: int) -> tuple[float, ...]:
    """Return Pillow's coefficients from the picture's pixels to those of the canvas in its edge."""
    x, y, turn, scale = pose.tolist()
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    shift_x, shift_y = 2 * size / 112 * x, 2 * size / 112 * y
    a, b, d, e = cos, sin, -sin, cos
    return (
        a,
        b,
        edge + size - a * (size + shift_x) - b * (size + shift_y),
        d,
        e,
        edge + size - d * (size + shift_x) - e * (size + shift_y),
    )


def _blinks(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return in which frames the eyes are shut."""
    shut = np.zeros(count, bool)
    for begin in np.flatnonzero(rng.random(count) < 0.012):
        shut[begin : begin + 4] = True
    return shut
