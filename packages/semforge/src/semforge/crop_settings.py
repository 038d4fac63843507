"""How a saved network wants its faces cut, and what it may be given instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from papercommons.errors import DataError

from semforge.options import CropMode, check_crop_words

SCALE = 1.3


def crop_way(
    config: Mapping[str, Any], size: int, crop: CropMode | None, boxes: str | None = None
) -> dict[str, Any]:
    """Return crop, size, detector and boxes for the faces that a saved network is given.

    Faces must be cut as in training. ``none`` fits every network, given faces that were cut so;
    ``detect`` fits one trained on faces that its detector found, or had found.

    Args:
        config: of the saved network.
        size: side of its faces.
        crop: what is asked for; None is as in training.
        boxes: CSV file, for ``boxes``.

    Raises:
        DataError: the network was trained on faces cut in another way.
        ValueError: boxes and crop do not go together.
    """
    trained = trained_crop(config)
    crop = trained["crop"] if crop is None else crop
    check_crop_words(crop, boxes)
    detector = trained.get("detector") if trained["crop"] != "none" else trained.get("cut_by")
    if crop == "none" or crop == trained["crop"] or (crop == "detect" and trained.get("cut_by")):
        return {"crop": crop, "size": size, "detector": detector or "lbp", "boxes": boxes}
    raise DataError(
        f"the network was trained on faces {describe_crop(trained)}, so --crop {crop} would show "
        "it something else; give faces cut as those were, with --crop none"
    )


def crop_of_photographs(config: Mapping[str, Any]) -> CropMode:
    """Return how faces are cut out of whole photographs and videos for a saved network.

    Args:
        config: of the saved network.

    Raises:
        DataError: it was trained on faces that were cut before, in a way it does not know.
        ValueError: it was trained with boxes.
    """
    trained = trained_crop(config)
    if trained["crop"] == "boxes":
        raise ValueError("the network was trained on faces cut by given boxes; give --boxes FILE")
    if trained["crop"] == "detect" or trained.get("cut_by"):
        return "detect"
    raise DataError(
        f"the network was trained on faces {describe_crop(trained)}, and does not know by what; "
        "give faces cut as those were, with --no-crop"
    )


def trained_crop(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the entry ``crop`` of a configuration.

    Raises:
        DataError: there is none.
    """
    trained = config.get("crop")
    known = get_args(CropMode)
    if not isinstance(trained, Mapping) or trained.get("crop") not in known:
        raise DataError("config.json: no entry crop, so it is not known how its faces were cut")
    return trained


def describe_crop(trained: Mapping[str, Any]) -> str:
    """Return in words how faces were cut.

    Args:
        trained: entry ``crop`` of a configuration.
    """
    size = trained.get("size", "?")
    square = f"square {SCALE} times the box, {size} pixels"
    if trained.get("crop") == "detect":
        return f"found by the detector {trained.get('detector')} ({square})"
    if trained.get("crop") == "boxes":
        return f"cut by given boxes ({square})"
    if trained.get("cut_by"):
        return f"cut before, found by the detector {trained['cut_by']} ({square})"
    return f"cut before (--crop none, {size} pixels)"
