"""`multi-edits-edit` and `multi-edits-group`: one image, its folder of results, its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.data.images import read_image
from papercommons.errors import DataError
from papercommons.files import hash_files, hash_model, prepare_out
from papercommons.pictures import strip
from papercommons.report import Result, Section, describe_device, write_report

from multi_edits.earlier import Earlier, continue_edit
from multi_edits.edited_image import (
    LIMITS,
    EditRequest,
    describe,
    edit_image,
    edit_rows,
    given_groups,
    group_facts,
)
from multi_edits.edits import Edit, edits_to_json
from multi_edits.grouping import AspectGroup
from multi_edits.model import EditingModel
from multi_edits.opening import open_pipeline
from multi_edits.options import PACKAGE, GroupOptions, MethodOptions, ModelOptions
from multi_edits.pictures import map_pictures, map_sections, step_sections
from multi_edits.reading import GivenGroup
from multi_edits.saved import save_edit, save_maps, save_picture


def edit_picture(
    settings: dict[str, Any],
    edits: tuple[Edit, ...],
    masks: dict[int, np.ndarray],
    groups: Sequence[GivenGroup] | None,
    earlier: Earlier | None,
    seed: int,
    overwrite: bool,
    method: MethodOptions,
    grouping: GroupOptions,
    where: ModelOptions,
) -> Result:
    """Edit an image, write the folder of the run, and return the result.

    Args:
        settings: model, image, source and out, and the other words of the command.
        edits: at their places in the source prompt.
        masks: index of an edit -> where it may change the image.
        groups: given ones, or None.
        earlier: a run whose first branches are kept, or None.
        seed: of the noise.
        overwrite: empty the folder first.
        method: how edits are made.
        grouping: how they are grouped.
        where: where the model runs.

    Raises:
        DataError: the model cannot be used, or the image, a prompt or an edit does not fit.
        ValueError: the device is not there, or an option is out of range.
    """
    out, image = settings["out"], read_image(settings["image"])
    image_hash = hash_files([settings["image"]])
    found_hash = hash_model(settings["model"])
    if earlier is not None:
        check_same(earlier, image_hash, found_hash)
    pipe = open_pipeline(settings["model"], where)
    request = EditRequest(
        settings["source"], edits, masks, None if groups is None else given_groups(groups, edits)
    )
    if earlier is None:
        done = edit_image(pipe, image, request, method, grouping, seed=seed, resize=where.resize)
    else:
        done = continue_edit(pipe, earlier, request, method, grouping, seed=seed)
    options = {**asdict(method), **asdict(grouping), **asdict(where)}
    folder = prepare_out(out, {**settings, "seed": seed, **options}, overwrite=overwrite)
    count = len(done.output.branches)
    what = "run" if method.mode == "sequential" else "branch"
    result = Result(
        package=PACKAGE,
        command="multi-edits-edit",
        title=f"{Path(settings['image']).name}: {_counted(len(edits), 'edit')} in "
        f"{_counted(count, what)}",
        rows=edit_rows(done.output.edits, done.output.groups, count),
        metrics={**describe(done), "model_hash": found_hash},
        settings={**settings, "seed": seed, **options},
        limits=LIMITS,
        data_hash=image_hash,
        device=describe_device(EditingModel(pipe).device),
        notes=[
            f"{done.output.rows:,} network rows, {done.seconds:.1f} s",
            *_kept_note(done.kept),
            *_mask_notes(method, masks, edits, done.output.groups, done.kept),
        ],
    )
    result.files |= save_edit(folder, done)
    write_report(folder / "report.html", result, [*_pair(done), *step_sections(done)])
    result.save(folder)
    return result


def _pair(done: Any) -> list[Section]:
    figure = strip([done.source, done.output.image], ["source", "edited"], columns=2)
    return [Section("The result", figure=figure, caption=done.output.prompts[-1])]


def _counted(count: int, what: str) -> str:
    plural = "es" if what.endswith("ch") else "s"
    return f"{count} {what}" if count == 1 else f"{count} {what}{plural}"


def _kept_note(kept: int) -> list[str]:
    if not kept:
        return []
    return [f"{kept} of the branches {'was' if kept == 1 else 'were'} kept from the earlier run"]


def _mask_notes(
    method: MethodOptions,
    masks: Mapping[int, np.ndarray],
    edits: Sequence[Edit],
    groups: Sequence[AspectGroup],
    kept: int,
) -> list[str]:
    """Return a line for each branch whose masks do not count."""
    if method.mode == "per-word":
        return []
    notes = []
    for n, group in enumerate(groups):
        masked = [str(edits[k]) for k in group.edits if k in masks]
        bare = [str(edits[k]) for k in group.edits if k not in masks]
        if masked and (n < kept or bare):
            why = "its branch is kept" if n < kept else f"{bare[0]} shares its branch and has none"
            notes.append(f"NO MASK IN EFFECT for {', '.join(masked)}: {why}")
    return notes


def check_same(earlier: Earlier, image_hash: str, found_hash: str) -> None:
    """Raise DataError unless an earlier run had this image and this model.

    Args:
        earlier: the run that is continued.
        image_hash: of the image given now.
        found_hash: of the model given now.
    """
    for what, before, now in (
        ("--image", earlier.data_hash, image_hash),
        ("--model", earlier.model_hash, found_hash),
    ):
        if before != now:
            raise DataError(f"{earlier.folder}: began with another {what}; give the same")


def group_picture(
    settings: dict[str, Any],
    edits: tuple[Edit, ...],
    seed: int,
    overwrite: bool,
    grouping: GroupOptions,
    where: ModelOptions,
) -> Result:
    """Find types and groups of edits, write the folder of the run, and return the result.

    Args:
        settings: model, image, source and out, and the other words of the command.
        edits: at their places in the source prompt.
        seed: of the noise.
        overwrite: empty the folder first.
        grouping: how edits are grouped.
        where: where the model runs.

    Raises:
        DataError: see `edit_picture`.
        ValueError: likewise.
    """
    image = read_image(settings["image"])
    pipe = open_pipeline(settings["model"], where)
    picture = EditingModel(pipe).fit(image, resize=where.resize)
    groups, aspects = pipe.find_groups(
        picture,
        source_prompt=settings["source"],
        edits=edits,
        grouping=grouping.grouping(),
        seed=seed,
    )
    options = {**settings, "seed": seed, **asdict(grouping), **asdict(where)}
    folder = prepare_out(settings["out"], options, overwrite=overwrite)
    result = Result(
        package=PACKAGE,
        command="multi-edits-group",
        title=f"{Path(settings['image']).name}: {_counted(len(edits), 'edit')} in "
        f"{_counted(len(groups), 'group')}",
        rows=edit_rows(edits, groups, len(groups)),
        metrics={"edits": edits_to_json(edits), "groups": group_facts(groups)},
        settings=options,
        limits="Types and groups are guesses from the attention maps of a short pass.",
        data_hash=hash_files([settings["image"]]),
        device=describe_device(EditingModel(pipe).device),
        files={"maps": str(folder / "maps")},
        notes=[f"multi-edits-edit --groups {settings['out']} uses these groups"],
    )
    save_picture(folder / "source.png", picture)
    save_maps(folder / "maps", aspects)
    drawn = map_pictures(picture, picture, aspects, edits)
    write_report(folder / "report.html", result, map_sections(drawn))
    result.save(folder)
    return result
