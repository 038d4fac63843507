"""`multi-edits-demo`: a page that edits one image at a time; needs the extra ``[demo]``."""

from __future__ import annotations

from typing import Any

import numpy as np
from papercommons.checks import check_seed
from papercommons.demo import check_gradio, show_page
from papercommons.pictures import enlarge
from PIL import Image

from multi_edits.edited_image import LIMITS, EditRequest, edit_image, edit_rows
from multi_edits.opening import open_pipeline
from multi_edits.options import GroupOptions, MethodOptions, ModelOptions
from multi_edits.pictures import branch_labels
from multi_edits.pipeline import MODES, MultiEditsPipeline
from multi_edits.reading import wanted_edits

MOST_PIXELS = 4_200_000  # attention grows with the square of it
COLUMNS = ("edit", "type", "branch", "overlap", "area")


def serve(model: str, host: str, port: int, where: ModelOptions) -> None:
    """Show the page until interrupted.

    Args:
        model: folder that diffusers wrote, or a hub id.
        host: address to listen on.
        port: likewise.
        where: where the model runs.

    Raises:
        DataError: gradio is not installed, the port is taken, or the model cannot be used.
    """
    check_gradio("multi-edits")
    pipe = open_pipeline(model, where)
    import gradio

    show_page(gradio, build_page(pipe, model), host, port)


def answer(
    pipe: MultiEditsPipeline,
    photo: np.ndarray | None,
    source: str,
    target: str,
    method: MethodOptions,
    seed: int,
) -> tuple[Image.Image, list[tuple[Image.Image, str]], list[list[Any]], str]:
    """Return the edited image, the branches with their captions, a table of edits, and words.

    Args:
        pipe: the model.
        photo: uint8, shape (H, W, 3); its sides are fitted to the model.
        source: prompt: what it shows.
        target: prompt: what the result shall show.
        method: how edits are made.
        seed: of the noise.

    Raises:
        ValueError: no image or one too large, or a prompt does not fit.
    """
    if photo is None:
        raise ValueError("give an image first")
    height, width = photo.shape[:2]
    if height * width > MOST_PIXELS:
        raise ValueError(f"the image has {height * width:,} pixels; give at most {MOST_PIXELS:,}")
    check_seed(seed)
    request = EditRequest(source, wanted_edits(source, target, None))
    image = Image.fromarray(photo)
    done = edit_image(pipe, image, request, method, GroupOptions(), seed=seed, resize=True)
    output = done.output
    found = edit_rows(output.edits, output.groups, len(output.branches))
    rows = [[_short(row[name]) for name in COLUMNS] for row in found]
    labels = branch_labels(output)
    branches = [(enlarge(image), name) for image, name in zip(output.branches, labels, strict=True)]
    says = f"{output.rows:,} network rows, {done.seconds:.1f} s."
    return enlarge(output.image), branches, rows, says


def _short(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else "" if value is None else value


def build_page(pipe: MultiEditsPipeline, model: str) -> Any:
    """Return the gradio page.

    Args:
        pipe: the model.
        model: its name, for the page.
    """
    import gradio

    def edit(
        photo: np.ndarray | None,
        source: str,
        target: str,
        mode: Any,
        steps: float,
        guidance: float,
        threshold: float,
        seed: float,
    ) -> Any:
        try:
            method = MethodOptions(
                mode=mode, steps=int(steps), guidance=guidance, edit_threshold=threshold
            )
            return answer(pipe, photo, source, target, method, int(seed or 0))
        except ValueError as error:
            raise gradio.Error(str(error)) from None

    with gradio.Blocks(title="Many edits of one image", analytics_enabled=False) as page:
        gradio.Markdown(
            "# Many edits of one image\nSay what the image shows, and what it shall show. Words "
            f"that differ are the edits; put [square brackets] around phrases. Model: {model}."
        )
        with gradio.Row():
            photo = gradio.Image(
                label="image",
                type="numpy",
                image_mode="RGB",
                sources=["upload", "clipboard"],
                buttons=["fullscreen"],
            )
            edited = gradio.Image(
                label="edited", interactive=False, buttons=["download", "fullscreen"], format="png"
            )
        source = gradio.Textbox(label="what the image shows", lines=1)
        target = gradio.Textbox(label="what it shall show", lines=1)
        with gradio.Accordion("How", open=False), gradio.Row():
            mode = gradio.Radio(list(MODES), value=MethodOptions().mode, label="mode")
            steps = gradio.Slider(2, 50, value=15, step=1, label="steps")
            guidance = gradio.Slider(1, 12, value=4, step=0.5, label="guidance")
            threshold = gradio.Slider(0, 1, value=0.5, step=0.05, label="threshold of regions")
            seed = gradio.Number(value=0, precision=0, label="seed")
        button = gradio.Button("Edit", variant="primary")
        says = gradio.Markdown()
        table = gradio.Dataframe(headers=list(COLUMNS), label="edits", interactive=False)
        branches = gradio.Gallery(label="branches", columns=4, object_fit="contain", format="png")
        given = [photo, source, target, mode, steps, guidance, threshold, seed]
        button.click(edit, given, [edited, branches, table, says])
        gradio.Markdown(LIMITS)
    return page
