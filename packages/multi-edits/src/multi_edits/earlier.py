"""An earlier run whose first branches are kept: the others are sampled on top of them.

Branches are sampled side by side, each held to the one before at every step, and what a step needs
of it (attention of all layers) is far too large to keep. So a kept branch is not run again: its
clean latents stand where the source's were, and only the later branches are sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.errors import DataError, reason

from multi_edits.edits import Edit, apply_edits, edits_from_json
from multi_edits.reading import GivenGroup, read_groups, read_json

if TYPE_CHECKING:
    from multi_edits.edited_image import EditedImage, EditRequest
    from multi_edits.options import GroupOptions, MethodOptions
    from multi_edits.pipeline import MultiEditsPipeline

LATENTS = "latents.safetensors"


@dataclass(frozen=True)
class Earlier:
    """What is taken over from an earlier run.

    Attributes:
        folder: its --out.
        keep: how many of its branches.
        groups: all of them.
        data_hash: of its image.
        model_hash: of its model.
    """

    folder: Path
    keep: int
    groups: tuple[GivenGroup, ...]
    data_hash: Any
    model_hash: Any


def read_earlier(folder: str, keep: int, source: str, edits: Sequence[Edit]) -> Earlier:
    """Return what is taken over; needs no torch.

    Args:
        folder: --out of the earlier run.
        keep: how many of its branches.
        source: prompt of the image, without brackets.
        edits: of the new run; those of the kept branches must be as they were.

    Raises:
        DataError: there is no such run, or the new one does not continue it.
    """
    path = Path(folder)
    if not (path / LATENTS).is_file():
        raise DataError(
            f"{folder}: no {LATENTS}; --keep needs the --out folder of multi-edits-edit"
        )
    result = read_json(path / "result.json")
    found = result.get("metrics") if isinstance(result, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("prompts"), list):
        raise DataError(f"{path / 'result.json'}: not a result of multi-edits-edit")
    settings = result.get("settings")
    mode = settings.get("mode") if isinstance(settings, dict) else None
    if mode != "parallel":
        raise DataError(f"{folder}: was made with --mode {mode}; --keep needs one of parallel")
    groups = read_groups(path, edits)
    before = edits_from_json(found.get("edits"))
    if not 1 <= keep < len(groups):
        raise DataError(
            f"--keep {keep}: {folder} has {len(groups)} branches; keep at least 1 and leave at "
            "least 1 to sample"
        )
    if " ".join(source.split()) != found["prompts"][0]:
        raise DataError(f"{folder}: began with another --source: {found['prompts'][0]!r}")
    for k in (k for group in groups[:keep] for k in group.edits):
        if k >= len(before) or before[k] != edits[k]:
            raise DataError(
                f"edit {k + 1} ({edits[k]}) is of a kept branch and was changed; keep fewer "
                "branches, or give it as it was"
            )
    return Earlier(path, keep, tuple(groups), result.get("data_hash"), found.get("model_hash"))


def continue_edit(
    pipe: MultiEditsPipeline,
    earlier: Earlier,
    request: EditRequest,
    method: MethodOptions,
    grouping: GroupOptions,
    *,
    seed: int,
) -> EditedImage:
    """Keep the first branches of an earlier run, and sample the others on top of them.

    Args:
        pipe: the model of the earlier run.
        earlier: what is kept.
        request: all edits, those of the kept branches too; masks of these have no effect.
        method: how; mode must be parallel.
        grouping: not used but for the pipeline's checks.
        seed: of the noise.

    Raises:
        DataError: files of the earlier run are missing or broken.
    """
    import torch
    from papercommons.data.images import read_image

    from multi_edits.edited_image import EditedImage, EditRequest, edit_image, given_groups

    keep, groups = earlier.keep, given_groups(earlier.groups, request.edits)
    latents, masks = _read_latents(earlier.folder / LATENTS, len(earlier.groups))
    pictures = [read_image(picture_path(earlier.folder, n)) for n in range(keep + 1)]
    made = [k for group in groups[:keep] for k in group.edits]
    state = apply_edits(request.source, request.edits, made)
    left = [k for group in groups[keep:] for k in group.edits]
    rest = EditRequest(
        state.text,
        tuple(replace(request.edits[k], position=state.places[k][0]) for k in left),
        {left.index(k): mask for k, mask in request.masks.items() if k in left},
        tuple(replace(g, edits=tuple(map(left.index, g.edits))) for g in groups[keep:]),
    )
    done = edit_image(
        pipe, pictures[keep], rest, method, grouping, seed=seed, latents=latents[keep : keep + 1]
    )
    new = done.output
    assert new.masks is not None
    prompts = [apply_edits(request.source, request.edits, _of(groups[:n])) for n in range(keep)]
    output = replace(
        new,
        edits=request.edits,
        groups=groups,
        prompts=(*(prompt.text for prompt in prompts), *new.prompts),
        masks=torch.cat([masks[:keep], new.masks]),
        branches=(*pictures[1:], *new.branches),
        latents=torch.cat([latents[:keep], new.latents]),
    )
    return EditedImage(pictures[0], output, done.seconds, keep)


def picture_path(folder: Path, branch: int) -> Path:
    """Return where the picture of a branch is; 0 is the source as the model saw it.

    Args:
        folder: of the run.
        branch: its number from 1; 0 is the source.
    """
    return folder / "branches" / f"{branch}.png"


def _of(groups: Sequence[Any]) -> list[int]:
    return [k for group in groups for k in group.edits]


def _read_latents(path: Path, branches: int) -> tuple[Any, Any]:
    from safetensors.torch import load_file

    try:
        arrays = load_file(path)
        latents, masks = arrays["latents"], arrays["masks"].bool()
    except Exception as error:  # readers fail in many ways on what is broken
        raise DataError(f"{path}: not readable ({reason(error)}); run it again") from None
    whole = latents.ndim == 4 and len(latents) == branches + 1 and bool(latents.isfinite().all())
    if not whole or masks.shape != (branches, *latents.shape[2:]):
        raise DataError(f"{path}: does not hold {branches} branches; run it again")
    return latents, masks
