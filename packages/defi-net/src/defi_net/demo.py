"""`defi-net-demo`: a page for one photograph at a time; needs the extra ``[demo]``."""

from __future__ import annotations

from typing import Any

import numpy as np
from papercommons.cli import ComputeOptions
from papercommons.demo import check_gradio, show_page
from papercommons.metrics.detection import image_score

from defi_net.calibration import FIXED, ImageThreshold, remembered
from defi_net.localizer import Localizer
from defi_net.opening import describe_way, open_localizer
from defi_net.options import PACKAGE, ViewOptions
from defi_net.pictures import overlay, shrink
from defi_net.reading import SHORTEST
from defi_net.saved import LIMITS

MOST_PIXELS = 50_000_000


def serve(checkpoint: str, host: str, port: int, view: ViewOptions, run: ComputeOptions) -> None:
    """Show the page until interrupted.

    Args:
        checkpoint: folder of a run or of a saved network, or file of a published checkpoint.
        host: address to listen on.
        port: likewise.
        view: how photographs are looked at.
        run: where and how to compute.

    Raises:
        DataError: gradio is not installed, the port is taken, or there is no such network.
    """
    check_gradio(PACKAGE)
    localizer, config = open_localizer(checkpoint, view, run)
    import gradio

    show_page(gradio, build_page(localizer, remembered(config)), host, port)


def look(
    photo: np.ndarray | None, localizer: Localizer, image: ImageThreshold
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the overlay, the map and words on one photograph.

    Args:
        photo: uint8, shape (H, W, 3).
        localizer: gives the maps.
        image: threshold for whole photographs.

    Raises:
        ValueError: no photograph, or one too small or too large.
    """
    if photo is None:
        raise ValueError("give a photograph first")
    height, width = photo.shape[:2]
    if min(height, width) < SHORTEST or height * width > MOST_PIXELS:
        raise ValueError(
            f"the photograph is {width}x{height}; sides must be >= {SHORTEST} pixels and the whole "
            f"at most {MOST_PIXELS:,}"
        )
    edge, probability = localizer.maps(photo)
    score = image_score(probability, image.score)
    marked = float(np.mean(probability > 0.5))
    says = f"Score {score:.3f}; {marked:.1%} of the pixels are above 0.5."
    if image is not FIXED:
        kind = "Forged" if score > image.value else "Authentic"
        says = f"**{kind}.** {says} Called forged above {image}."
    drawn = overlay(photo, probability, edge=edge)
    return shrink(drawn), shrink(probability), says


def build_page(localizer: Localizer, image: ImageThreshold) -> Any:
    """Return the gradio page.

    Args:
        localizer: gives the maps.
        image: threshold for whole photographs.
    """
    import gradio

    def answer(photo: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, str]:
        try:
            return look(photo, localizer, image)
        except ValueError as error:
            raise gradio.Error(str(error)) from None

    with gradio.Blocks(title="Where was this picture inpainted?", analytics_enabled=False) as page:
        gradio.Markdown(
            "# Where was this picture inpainted?\nDeFI-Net; red is the probability of inpainting, "
            f"yellow its edges. It sees {describe_way(localizer)}."
        )
        with gradio.Row():
            given = gradio.Image(
                label="photograph",
                type="numpy",
                image_mode="RGB",
                sources=["upload", "clipboard"],
                buttons=["fullscreen"],
            )
            drawn, found = (
                gradio.Image(label=name, interactive=False, buttons=["download", "fullscreen"])
                for name in ("probability on the photograph", "probability")
            )
        look_at = gradio.Button("Look", variant="primary")
        says = gradio.Markdown()
        look_at.click(answer, given, [drawn, found, says])
        gradio.Markdown(LIMITS)
    return page
