"""`d-tiil-demo`: a page that looks at one pair at a time; needs the extra ``[demo]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from papercommons.checks import check_seed
from papercommons.demo import check_gradio, show_page
from papercommons.files import hash_model
from papercommons.pictures import enlarge, heat, overlay
from PIL import Image

from d_tiil.calibration import Calibration
from d_tiil.localizing import check_made_with, holds_for
from d_tiil.opening import open_pipeline, quantity_hashes
from d_tiil.options import (
    PACKAGE,
    Depth,
    HelperOptions,
    LocateOptions,
    ModelOptions,
    check_caption,
)
from d_tiil.pair_report import LIMITS, verdict, word_rows
from d_tiil.pictures import marked
from d_tiil.pipeline import DTIILPipeline
from d_tiil.saved import map_levels
from d_tiil.settings import LocateSettings

MOST_PIXELS = 40_000_000
COLUMNS = ("word", "score", "inconsistent")
DEPTHS: dict[str, Depth] = {
    "all four steps": "full",
    "first step only": "first",
    "score only": "score",
}


def serve(
    model: str,
    host: str,
    port: int,
    method: LocateSettings,
    how: LocateOptions,
    helpers: HelperOptions,
    where: ModelOptions,
) -> None:
    """Show the page until interrupted.

    Args:
        model: folder that diffusers wrote, or a hub id.
        host: address to listen on.
        port: likewise.
        method: the settings that `how` means for the model.
        how: the method's options.
        helpers: models and files beside the model.
        where: where the model runs.

    Raises:
        DataError: gradio is not installed, the port is taken, or the model cannot be used.
    """
    check_gradio(PACKAGE)
    pipe = open_pipeline(model, method, how, helpers, where)
    depths = usable_depths(pipe.calibration, hash_model(model), method, helpers)
    import gradio

    show_page(gradio, build_page(pipe, model, depths), host, port)


def usable_depths(
    calibration: Calibration | None, weights: str, method: LocateSettings, helpers: HelperOptions
) -> list[str]:
    """Return the names of `DEPTHS` that a calibration holds for; all without one.

    Args:
        calibration: or None.
        weights: hash of the model.
        method: settings of the method.
        helpers: models and files beside the model.

    Raises:
        DataError: the calibration holds for none: it is of another model or of other settings.
    """
    made_with = {k: quantity_hashes(weights, method, helpers, v) for k, v in DEPTHS.items()}
    usable = [k for k, v in made_with.items() if calibration is None or holds_for(calibration, v)]
    if not usable:
        check_made_with(calibration, made_with["all four steps"], helpers)
    return usable


def answer(
    pipe: DTIILPipeline, photo: np.ndarray | None, caption: str, depth: Depth, seed: int
) -> tuple[list[tuple[Image.Image, str]], list[list[Any]], str]:
    """Return pictures with their captions, a table of words, and the answer in words.

    Args:
        pipe: the model.
        photo: uint8, shape (H, W, 3).
        caption: what it is said to show.
        depth: how far to go.
        seed: of the noise.

    Raises:
        ValueError: no image or one too large, or a caption that cannot be judged.
    """
    if photo is None:
        raise ValueError("give an image first")
    height, width = photo.shape[:2]
    if height * width > MOST_PIXELS:
        raise ValueError(f"the image has {height * width:,} pixels; give at most {MOST_PIXELS:,}")
    check_seed(seed)
    check_caption(caption, words=depth != "score")
    image = Image.fromarray(photo)
    done = pipe(image, caption, depth=depth, seed=seed)
    pictures = []
    if done.final is not None:
        levels = map_levels(done.final, done.settings.maps.blur)
        pictures = [(overlay(image, done.mask), "mask"), (heat(image, levels), "final map")]
    if done.edited is not None:
        pictures.append((enlarge(done.edited), "edited towards the caption"))
    rows = [
        [row["word"], float(f"{row['score']:.4g}"), "yes" if row["inconsistent"] else ""]
        for row in word_rows(done)
    ]
    said = [verdict(done, pipe.calibration), marked(caption, done.words), done.note]
    return pictures, rows, "\n\n".join(text for text in said if text)


def build_page(pipe: DTIILPipeline, model: str, depths: Sequence[str] = tuple(DEPTHS)) -> Any:
    """Return the gradio page.

    Args:
        pipe: the model.
        model: its name, for the page.
        depths: of `DEPTHS`, that can be chosen.
    """
    import gradio

    def look(photo: np.ndarray | None, caption: str, depth: str, seed: float) -> Any:
        try:
            return answer(pipe, photo, caption, DEPTHS[depth], int(seed or 0))
        except ValueError as error:
            raise gradio.Error(str(error)) from None

    with gradio.Blocks(title="Image against caption", analytics_enabled=False) as page:
        gradio.Markdown(
            "# Image against caption\nWhich region of the image and which word of the caption do "
            f"not belong together? Model: {model}."
        )
        with gradio.Row():
            photo = gradio.Image(
                label="image",
                type="numpy",
                image_mode="RGB",
                sources=["upload", "clipboard"],
                buttons=["fullscreen"],
            )
            with gradio.Column():
                caption = gradio.Textbox(label="caption", lines=2)
                depth = gradio.Radio(list(depths), value=depths[0], label="how far")
                seed = gradio.Number(value=0, precision=0, label="seed")
                button = gradio.Button("Look", variant="primary")
        says = gradio.Textbox(label="answer", interactive=False)
        pictures = gradio.Gallery(label="pictures", columns=3, object_fit="contain", format="png")
        table = gradio.Dataframe(headers=list(COLUMNS), label="words", interactive=False)
        button.click(look, [photo, caption, depth, seed], [pictures, table, says])
        gradio.Markdown(LIMITS)
    return page
