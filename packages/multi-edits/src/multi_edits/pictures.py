"""Pictures of how an image was edited: attention maps, regions, branches."""

from __future__ import annotations

from collections.abc import Sequence

from papercommons.pictures import heat, outline, strip
from papercommons.report import Section
from PIL import Image

from multi_edits.edited_image import EditedImage
from multi_edits.edits import Edit
from multi_edits.grouping import Aspect, AspectGroup
from multi_edits.pipeline import MultiEditsOutput

MOST_SHOWN = 16


def branch_labels(output: MultiEditsOutput) -> list[str]:
    """Return each branch in a few words, for example ``1, rigid: red -> green``."""
    groups = [_group_label(group, output.edits) for group in output.groups]
    labels = groups if len(groups) == len(output.branches) else ["; ".join(groups)]
    return [f"{n}, {label}" for n, label in enumerate(labels, 1)]


def _group_label(group: AspectGroup, edits: Sequence[Edit]) -> str:
    return f"{group.kind}: {', '.join(str(edits[k]) for k in group.edits)}"


def step_sections(done: EditedImage) -> list[Section]:
    """Return the parts of a report that show how an image was edited.

    Args:
        done: of one request.
    """
    output = done.output
    labels = branch_labels(output)[:MOST_SHOWN]
    pictures = output.branches[: len(labels)]
    sections = [
        Section(
            "From branch to branch",
            figure=strip([done.source, *pictures], ["source", *labels]),
            caption="The source, then each branch's picture, which has the edits of all before it;"
            " the last is the result.",
        )
    ]
    if output.masks is not None:
        outlined = [
            outline(picture, mask.numpy())
            for picture, mask in zip(pictures, output.masks, strict=False)
        ]
        sections.append(
            Section(
                "Where a branch may differ from the one before",
                figure=strip(outlined, labels),
                caption="Outside of the yellow line a branch leaves what was there before.",
            )
        )
    maps = map_pictures(done.source, output.branches[-1], output.aspects, output.edits)
    sections += map_sections(maps)
    prompts = [
        {"branch": "source" if n == 0 else str(n), "prompt": prompt}
        for n, prompt in enumerate(output.prompts)
    ]
    return [*sections, Section("Prompts", rows=prompts)]


def map_sections(drawn: Sequence[tuple[str, Image.Image]]) -> list[Section]:
    """Return the part that shows the attention maps by which edits were typed, if there are any.

    Args:
        drawn: from `map_pictures`.
    """
    if not drawn:
        return []
    shown = drawn[:MOST_SHOWN]
    return [
        Section(
            "Attention",
            text="The maps of the short pass, scaled by their own maximum. An edit is rigid where "
            "the old phrase's map and the new one's agree, and global where the new one's covers "
            "the image.",
            figure=strip([picture for _, picture in shown], [name for name, _ in shown]),
            caption="Red: where the words are seen.",
        )
    ]


def map_pictures(
    source: Image.Image, result: Image.Image, aspects: Sequence[Aspect], edits: Sequence[Edit]
) -> list[tuple[str, Image.Image]]:
    """Return the maps on their images, each with its words.

    Args:
        source: the image.
        result: likewise, after the edits.
        aspects: with their maps.
        edits: that they belong to.
    """
    drawn = []
    for aspect in aspects:
        words = ", ".join(str(edits[k]) for k in aspect.edits)
        for which, levels, image in (
            ("old", aspect.source, source),
            ("new", aspect.target, result),
        ):
            if levels is not None:
                drawn.append((f"{words} ({which})", heat(image, levels.cpu().numpy())))
    return drawn
