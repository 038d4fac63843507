"""Embeddings of many images: for scores, for pictures, and as a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.cli import ComputeOptions, track
from papercommons.data.defects import LeftOut
from papercommons.data.images import find_images
from papercommons.data.word_layouts import WordFile, read_word
from papercommons.devices import autocast, compute_device
from papercommons.files import atomic_path, find_saved, hash_files
from papercommons.report import Result, describe_device
from torch import Tensor, nn

from ssl_hv.encoders import DESCRIPTORS, create_encoder
from ssl_hv.options import PACKAGE
from ssl_hv.saved import load_encoder
from ssl_hv.shapes import check_size
from ssl_hv.verifier import as_ink

BATCH = 512


@torch.no_grad()
def embed(
    encoder: nn.Module,
    images: Tensor,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    batch_size: int = BATCH,
    label: str | None = "embedding",
) -> Tensor:
    """Return the embeddings of images, float32 on the CPU, shape (N, dim).

    Args:
        encoder: in whatever mode; it is put into evaluation mode and back.
        images: uint8 dark on white, or float with ink = 1; shape (N, C, H, W).
        device: where to compute.
        precision: 32-true, bf16-mixed or 16-mixed.
        batch_size: images at once.
        label: words beside a progress bar; None shows none.
    """
    before = encoder.training
    encoder.eval().to(device)
    parts = []
    batches = images.split(batch_size)
    for part in batches if label is None else track(batches, label):
        with autocast(device, precision):
            parts.append(encoder(as_ink(part.to(device))).float().cpu())
    encoder.train(before)
    return torch.cat(parts)


def embed_images(
    images: Sequence[str],
    checkpoint: str,
    out: str,
    resize: int | None,
    skip_bad: bool,
    run: ComputeOptions,
) -> Result:
    """Write the embeddings of image files and return the result.

    Args:
        images: files and folders.
        checkpoint: a run or saved network, or the name of a descriptor.
        out: the .npz file.
        resize: fit images into squares of this side.
        skip_bad: leave out what cannot be used.
        run: where and how to compute.

    Raises:
        DataError: no images, or one that cannot be used.
    """
    options: dict[str, Any] = {}
    data_hash = None
    if checkpoint in DESCRIPTORS:
        encoder: nn.Module = create_encoder(checkpoint)
    else:
        encoder, config = load_encoder(find_saved(checkpoint))
        options, data_hash = config["encoder_options"], config.get("data_hash")
    channels, size = options.get("in_channels", 1), options.get("image_size", 64)
    device = compute_device(run)
    names: list[str] = []
    left_out = LeftOut(skip_bad)
    parts = []
    words = _read_words(find_images(images), resize, size, left_out)
    while batch := list(islice(words, BATCH)):
        names += [name for name, _ in batch]
        pixels = torch.from_numpy(np.stack([word for _, word in batch]))[:, None]
        pixels = pixels.expand(-1, channels, -1, -1)
        parts.append(embed(encoder, pixels, device=device, precision=run.precision, label=None))
    left_out.check_any(len(names), "images")
    vectors = torch.cat(parts).numpy()
    with atomic_path(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, names=np.array(names), vectors=vectors)
    return Result(
        package=PACKAGE,
        command="ssl-hv-embed",
        title=f"{len(names)} embeddings of {vectors.shape[1]} numbers by {checkpoint}",
        metrics={"images": len(names), "size": vectors.shape[1], "left_out": len(left_out)},
        settings={"checkpoint": checkpoint, "out": out, "resize": resize, **run.settings()},
        limits="Embeddings of one handwritten word each; distances mean something only between "
        "images of the same word.",
        data_hash=hash_files([Path(name) for name in names]) if data_hash is None else data_hash,
        device=describe_device(device),
        files={"embeddings": out},
        notes=left_out.notes(),
    )


def _read_words(
    paths: Sequence[Path], resize: int | None, size: int, left_out: LeftOut
) -> Iterator[tuple[str, np.ndarray]]:
    """Give name and image of each file that can be used."""
    for path in track(paths, "embedding"):
        with left_out.noting():
            word = read_word(WordFile(path.name, "", path), None, resize)
            check_size(size, word.shape, str(path))
            yield str(path), word
