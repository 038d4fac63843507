"""One image edited: from what a command was asked for to what it found, and its plain facts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from multi_edits.edits import Edit, edits_to_json
from multi_edits.grouping import AspectGroup
from multi_edits.inputs import open_picture
from multi_edits.model import EditingModel
from multi_edits.options import GroupOptions, MethodOptions
from multi_edits.pipeline import MultiEditsOutput, MultiEditsPipeline
from multi_edits.reading import GivenGroup

LIMITS = (
    "The result shows what the model makes of the words: edits may be missed or spill over, and "
    "types and groups are guesses from attention maps. It is a made picture, no photograph of "
    "anything."
)


@dataclass(frozen=True)
class EditRequest:
    """What is to be edited.

    Attributes:
        source: prompt of the image, with or without brackets.
        edits: from `multi_edits.reading.wanted_edits`.
        masks: index of an edit -> where it may change the image, bool, (H, W) of the image.
        groups: those of an earlier result or made up; they are found if not given.
    """

    source: str
    edits: tuple[Edit, ...]
    masks: Mapping[int, np.ndarray] = field(default_factory=dict)
    groups: tuple[AspectGroup, ...] | None = None


@dataclass(frozen=True)
class EditedImage:
    """What came of a request.

    Attributes:
        source: the image as the model saw it.
        output: of the pipeline.
        seconds: that it took, the model's loading left out.
        kept: how many branches were taken over from an earlier run.
    """

    source: Image.Image
    output: MultiEditsOutput
    seconds: float
    kept: int = 0


def edit_image(
    pipe: MultiEditsPipeline,
    image: Image.Image,
    request: EditRequest,
    method: MethodOptions,
    grouping: GroupOptions,
    *,
    seed: int,
    resize: bool = False,
    latents: Tensor | None = None,
) -> EditedImage:
    """Make the edits of a request.

    Args:
        pipe: the model.
        image: RGB.
        request: what is to be edited.
        method: how.
        grouping: how edits are grouped, unless the request says.
        seed: of the noise.
        resize: fit sides to the model.
        latents: of the image, if they are known, float, (1, C, h, w).

    Raises:
        DataError: see `MultiEditsPipeline`.
        ValueError: likewise.
    """
    picture = EditingModel(pipe).fit(open_picture(image), resize=resize)
    started = time.perf_counter()
    output = pipe(
        picture,
        source_prompt=request.source,
        edits=request.edits,
        mode=method.mode,
        steps=method.steps,
        settings=method.sampling(),
        grouping=grouping.grouping(),
        groups=request.groups,
        masks={k: fitted_mask(mask, picture.size) for k, mask in request.masks.items()},
        latents=latents,
        seed=seed,
    )
    return EditedImage(picture, output, time.perf_counter() - started)


def fitted_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask of an image for the image at another size, by its nearest pixels.

    Args:
        mask: bool, (H, W).
        size: width and height.
    """
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize(size, Image.Resampling.NEAREST)) > 127


def given_groups(groups: Sequence[GivenGroup], edits: Sequence[Edit]) -> tuple[AspectGroup, ...]:
    """Return the groups of a file as the pipeline takes them.

    Args:
        groups: from `multi_edits.reading.read_groups`.
        edits: that they hold.
    """
    return tuple(
        AspectGroup(g.kind, g.edits, g.overlap, g.area, edits[g.edits[0]].strength)  # type: ignore[arg-type]
        for g in groups
    )


def edit_rows(
    edits: Sequence[Edit], groups: Sequence[AspectGroup], branches: int
) -> list[dict[str, Any]]:
    """Return a table with one row for each edit; what has no branch was left out.

    Args:
        edits: in their order.
        groups: one for each branch or run, or several for a single one.
        branches: how many there are.
    """
    homes = {k: (min(n, branches), group) for n, group in enumerate(groups, 1) for k in group.edits}
    rows = []
    for k, edit in enumerate(edits):
        number, group = homes.get(k, (None, None))
        rows.append(
            {
                "nr": k + 1,
                "edit": str(edit),
                "strength": edit.strength,
                "type": None if group is None else group.kind,
                "branch": number,
                "overlap": None if group is None else group.overlap,
                "area": None if group is None else group.area or None,
            }
        )
    return rows


def group_facts(groups: Sequence[AspectGroup]) -> list[dict[str, Any]]:
    """Return groups as plain values, edits numbered from 1, as `read_groups` takes them."""
    return [
        {
            "kind": group.kind,
            "edits": [k + 1 for k in group.edits],
            "overlap": group.overlap,
            "area": group.area,
            "strength": group.strength,
        }
        for group in groups
    ]


def describe(done: EditedImage) -> dict[str, Any]:
    """Return what result.json says of an edited image, as plain values."""
    output = done.output
    return {
        "seconds": done.seconds,
        "network_rows": output.rows,
        "kept_branches": done.kept,
        "prompts": list(output.prompts),
        "edits": edits_to_json(output.edits),
        "groups": group_facts(output.groups),
    }
