"""The files of an edited image: pictures, masks, maps, and latents to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from papercommons.files import atomic_path
from PIL import Image

from multi_edits.earlier import LATENTS, picture_path
from multi_edits.edited_image import EditedImage
from multi_edits.grouping import Aspect


def save_picture(path: Path, image: Image.Image) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: ends in .png.
        image: any mode that PNG has.
    """
    with atomic_path(path) as temporary:
        image.save(temporary)


def save_edit(folder: Path, done: EditedImage, *, pictures: bool = True) -> dict[str, str]:
    """Write an edited image into a folder, and return what was written, by kind.

    Args:
        folder: gets edited.png; with `pictures` also branches/N.png (0 is the source), masks/N.png
            (white: where branch N may differ from the one before), maps/N_old.png and N_new.png
            (attention of edit N's phrases, N from 1), and latents.safetensors.
        done: what is written.
        pictures: write more than edited.png.
    """
    output = done.output
    files = {"edited": folder / "edited.png"}
    if pictures:
        for n, branch in enumerate([done.source, *output.branches]):
            save_picture(picture_path(folder, n), branch)
        assert output.masks is not None
        for n, mask in enumerate(output.masks.numpy(), 1):
            white = Image.fromarray(mask.astype(np.uint8) * 255)
            enlarged = white.resize(output.image.size, Image.Resampling.NEAREST)
            save_picture(folder / "masks" / f"{n}.png", enlarged)
        save_maps(folder / "maps", output.aspects)
        save_latents(folder / LATENTS, output.latents, output.masks)
        files |= {"branches": folder / "branches", "masks": folder / "masks"}
        files |= {"maps": folder / "maps"} if (folder / "maps").is_dir() else {}
    save_picture(files["edited"], output.image)
    return {kind: str(path) for kind, path in files.items()}


def save_maps(folder: Path, aspects: Sequence[Aspect]) -> None:
    """Write the attention maps of aspects, 256 x 256, 255 where attention is greatest.

    Args:
        folder: gets N_old.png and N_new.png, N the number of the aspect's first edit, from 1.
        aspects: with their maps.
    """
    for aspect in aspects:
        for which, levels in (("old", aspect.source), ("new", aspect.target)):
            if levels is not None:
                grey = np.rint(levels.cpu().numpy()).astype(np.uint8)
                name = f"{aspect.edits[0] + 1}_{which}.png"
                save_picture(folder / name, Image.fromarray(grey))


def save_latents(path: Path, latents: torch.Tensor, masks: torch.Tensor) -> None:
    """Write what a later run with --keep goes on from.

    Args:
        path: a safetensors file.
        latents: of the source and of each branch, float, (1 + N, C, h, w).
        masks: of each branch, bool, (N, h, w).
    """
    from safetensors.torch import save_file

    arrays = {"latents": latents.float().contiguous(), "masks": masks.to(torch.uint8).contiguous()}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary)
