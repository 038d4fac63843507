"""Photographs and their masks from files, with every check of section 4; needs no torch.

A mask says 1 where the picture is forged. Its file is 8-bit grey with 0 and 255 (or 0 and 1), of
the photograph's size. Nothing is repaired in silence: what does not fit is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from papercommons.cli import track
from papercommons.data.images import read_image
from papercommons.errors import DataError

from defi_net.layouts import MissingMask, Sample, shorten

log = logging.getLogger("papercommons")

SHORTEST = 16  # pixels of a side; the network halves it three times
GREY = range(16, 240)  # values that are neither clearly 0 nor clearly 255
NEARLY_EQUAL = 16  # levels by which channels of a grey mask may differ: editors and JPEG round
COLOURED = 0.001  # share of pixels that may differ by more
MUCH_GREY = 0.01  # share that is worth a warning
ALL_GREY = 0.5  # share above which it is no mask
INVERTED = 0.95  # share of white above which the meaning is probably turned round
_ORIENTATION = 0x0112  # EXIF
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height


class Header(NamedTuple):
    """What the first bytes of an image file say.

    Attributes:
        stored: width and height as stored.
        size: width and height when upright.
        orientation: of EXIF, 1 to 8; None if not given.
    """

    stored: tuple[int, int]
    size: tuple[int, int]
    orientation: int | None


class MaskReading(NamedTuple):
    """A mask that was read.

    Attributes:
        mask: bool, shape (H, W), True where forged.
        grey: share of pixels that were neither dark (below 16) nor light (240 and above).
    """

    mask: np.ndarray
    grey: float


def read_header(path: str | Path) -> Header:
    """Return size and orientation of an image file without decoding its pixels.

    Raises:
        DataError: missing, no image, or more than 170 million pixels.
    """
    return read_image(path, convert=_header)


def _header(image: Any) -> Header:
    orientation = image.getexif().get(_ORIENTATION)
    width, height = image.size
    size = (height, width) if orientation in _SIDEWAYS else (width, height)
    return Header(image.size, size, orientation)


def read_photo(path: str | Path) -> np.ndarray:
    """Return a photograph as the network sees it.

    Args:
        path: any format that Pillow reads; put upright by its EXIF; palette, grey, CMYK and 16-bit
            pictures become 8-bit RGB, alpha is dropped (the colours below it are kept).

    Returns:
        uint8, shape (H, W, 3), H and W >= 16.

    Raises:
        DataError: missing, broken, above 170 million pixels, of 32-bit pixels, or a side below 16.
    """
    photo = np.array(read_image(path, convert=_photo))
    if min(photo.shape[:2]) < SHORTEST:
        height, width = photo.shape[:2]
        raise DataError(
            f"{path}: is {width}x{height}; both sides must be >= {SHORTEST} pixels; leave it "
            "out or pass --skip-bad"
        )
    return photo


def _photo(image: Any) -> Any:
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode[0] in "IF":
        return np.repeat(_eight_bits(np.asarray(upright))[..., None], 3, axis=2)
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        upright = upright.convert("RGBA").convert("RGB")
    return upright.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Return 16-bit grey values as 8-bit ones."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("32-bit pixels; convert it to 8 or 16 bits")
    return (values >> 8).astype(np.uint8)


def read_mask(path: str | Path, *, photo: Header | None = None) -> MaskReading:
    """Return a mask.

    Args:
        path: image file with one channel, or with nearly equal ones; values 0 and 255, 0 and 1,
            or 0 and 65535; above half of the range means forged; alpha is dropped.
        photo: header of its photograph: where that is turned by EXIF and the mask, which says
            nothing of its own, has the size of the photograph as stored, both are turned alike.

    Raises:
        DataError: missing, broken, coloured, grey in more than half of its pixels, or white in more
            than 95 % of them.
    """

    def convert(image: Any) -> np.ndarray:
        return _grey(_turned(image, photo))

    values = read_image(path, convert=convert)
    if values.ndim == 3:
        spread = values.max(axis=2) - values.min(axis=2)
        if np.mean(spread > NEARLY_EQUAL) > COLOURED:
            raise DataError(
                f"{path}: a mask must have one channel or equal ones, this is coloured; save it as "
                "8-bit grey with 0 and 255"
            )
        values = values[..., 1]
    if values.max(initial=0) <= 1:
        values = values * 255
    grey = float(np.mean((values >= GREY.start) & (values < GREY.stop)))
    if grey > ALL_GREY:
        raise DataError(
            f"{path}: {grey:.0%} of the mask is grey; expected 0 (authentic) and 255 (forged)"
        )
    mask = values > 127
    if mask.mean() > INVERTED:
        raise DataError(
            f"{path}: {mask.mean():.1%} of the mask is white, so it looks inverted; white must "
            "mean forged: invert it, or leave the image out"
        )
    return MaskReading(mask, grey)


def _turned(image: Any, photo: Header | None) -> Any:
    """Put a mask upright: by its own EXIF, or else together with a photograph it lies on."""
    from PIL import ImageOps

    own = image.getexif().get(_ORIENTATION)
    if own is None and photo is not None and photo.orientation and image.size == photo.stored:
        image = image.copy()
        image.getexif()[_ORIENTATION] = photo.orientation
    return ImageOps.exif_transpose(image)


def _grey(image: Any) -> np.ndarray:
    """Return uint8 values, (H, W) or, where there are colours, (H, W, 3)."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode[0] in "IF":
        values = np.asarray(image)
        return (
            values.astype(np.uint8)
            if 0 <= values.min() <= values.max() <= 255
            else _eight_bits(values)
        )
    if image.mode == "L":
        return np.asarray(image)
    if image.mode == "LA":
        return np.asarray(image.getchannel("L"))
    return np.asarray(image.convert("RGB"))


def read_sample(
    sample: Sample, *, missing_mask: MissingMask = "error", resize_masks: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the photograph of a sample and what is forged in it.

    Args:
        sample: without a mask it is authentic.
        missing_mask: what a mask without a forged pixel means: ``error``, or ``authentic``.
        resize_masks: fit a mask of another size to its photograph, by nearest neighbour.

    Returns:
        uint8 (H, W, 3), and bool (H, W), True where forged.

    Raises:
        DataError: see `read_photo` and `read_mask`; or the sizes differ; or the mask is empty.
    """
    photo = read_photo(sample.image)
    mask, _ = _mask_of(sample, photo.shape[:2], missing_mask, resize_masks)
    return photo, mask


def _mask_of(
    sample: Sample, shape: tuple[int, ...], missing_mask: MissingMask, resize_masks: bool
) -> MaskReading:
    if sample.mask is None:
        return MaskReading(np.zeros(shape, dtype=bool), 0.0)
    reading = read_mask(sample.mask, photo=read_header(sample.image))
    mask = reading.mask
    if mask.shape != shape:
        if not resize_masks:
            raise DataError(_sizes_differ(sample, shape[::-1], mask.shape[::-1]))
        mask = _nearest(mask, shape)
    if not mask.any() and missing_mask == "error":
        raise DataError(
            f"{sample.mask}: the mask marks nothing as forged; if {sample.image.name} is "
            "authentic, give it no mask or pass --missing-mask authentic"
        )
    return MaskReading(mask, reading.grey)


def _sizes_differ(sample: Sample, photo: Sequence[int], mask: Sequence[int]) -> str:
    return (
        f"{sample.mask}: is {mask[0]}x{mask[1]}, but {sample.image.name} is {photo[0]}x{photo[1]}; "
        "they must agree; pass --resize-masks to fit the mask"
    )


def _nearest(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    resized = Image.fromarray(mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
    return np.asarray(resized)


def check_headers(
    samples: Sequence[Sample], *, resize_masks: bool = False
) -> dict[Sample, DataError]:
    """Return what is wrong with samples as far as the files' first bytes tell.

    Missing files, files that are no images, sides below 16, and sizes that differ.

    Args:
        samples: all are looked at.
        resize_masks: another size of the mask is no fault.
    """
    return _faults(samples, lambda sample: _check_header(sample, resize_masks))


def _check_header(sample: Sample, resize_masks: bool) -> None:
    photo = read_header(sample.image)
    if min(photo.size) < SHORTEST:
        raise DataError(
            f"{sample.image}: is {photo.size[0]}x{photo.size[1]}; both sides must be >= {SHORTEST} "
            "pixels; leave it out or pass --skip-bad"
        )
    if sample.mask is None:
        return
    mask = read_header(sample.mask)
    alike = mask.orientation is None and mask.stored == photo.stored
    if not (alike or mask.size == photo.size or resize_masks):
        raise DataError(_sizes_differ(sample, photo.size, mask.size))


def check_samples(
    samples: Sequence[Sample], *, missing_mask: MissingMask = "error", resize_masks: bool = False
) -> dict[Sample, DataError]:
    """Read every file, return what is wrong, and warn once of masks with grey pixels.

    Args:
        samples: all are read.
        missing_mask: see `read_sample`.
        resize_masks: likewise.
    """
    greyish: list[Path] = []

    def check(sample: Sample) -> None:
        photo = read_photo(sample.image)
        reading = _mask_of(sample, photo.shape[:2], missing_mask, resize_masks)
        if sample.mask is not None and reading.grey > MUCH_GREY:
            greyish.append(sample.mask)

    faults = _faults(samples, check)
    if greyish:
        log.warning(
            "%d masks have more than 1 %% grey pixels, which count as forged above 127: %s",
            len(greyish),
            shorten(sorted(map(str, greyish))),
        )
    return faults


def _faults(samples: Sequence[Sample], check: Callable[[Sample], None]) -> dict[Sample, DataError]:
    def look(sample: Sample) -> DataError | None:
        try:
            check(sample)
        except DataError as error:
            return error
        return None

    with ThreadPoolExecutor() as threads:
        found = zip(track(samples, "Reading images"), threads.map(look, samples), strict=True)
        return {sample: error for sample, error in found if error is not None}


def drop_faulty(
    samples: Sequence[Sample], faults: dict[Sample, DataError], *, skip_bad: bool
) -> list[Sample]:
    """Return the samples without fault, and say how many were left out.

    Args:
        samples: all.
        faults: of some, see `check_samples`.
        skip_bad: leave them out; else the first one is raised.

    Raises:
        DataError: the first fault, or nothing is left.
    """
    if not faults:
        return list(samples)
    if not skip_bad:
        raise next(iter(faults.values()))
    log.warning(
        "--skip-bad leaves out %d of %d images: %s",
        len(faults),
        len(samples),
        shorten(map(str, faults.values()), "; "),
    )
    good = [sample for sample in samples if sample not in faults]
    if not good:
        raise DataError(
            f"none of the {len(samples)} images can be used: {next(iter(faults.values()))}"
        )
    return good
