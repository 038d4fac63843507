"""What `rld-distill-cache` does: the teacher's logits of the training images, in one file."""

from __future__ import annotations

from pathlib import Path

import torch
from papercommons.cli import DeviceOptions
from papercommons.files import is_first_process
from papercommons.report import Result, describe_device
from papercommons.training import gather_predictions, may_use_cuda, seed_everything

from rld_distill.cache import write_cache
from rld_distill.data import open_data
from rld_distill.lightning import RLDModule
from rld_distill.options import PACKAGE, DataOptions, TeacherOptions
from rld_distill.presets import PRESETS
from rld_distill.teachers import load_teacher


def cache_teacher(
    data: str,
    options: TeacherOptions,
    out: str,
    images: DataOptions,
    run: DeviceOptions,
    views: int,
    dtype: str,
    top_k: int | None,
    batch_size: int,
) -> Result:
    """Write the teacher's logits of the training images, and return what was written.

    Args:
        data: see `rld_distill.sources.parse_data`.
        options: the teacher's; it has a name or folder.
        out: the file.
        images: how images are read.
        run: where and how to compute.
        views: augmented views of each image.
        dtype: of the file, float32 or float16.
        top_k: keep only so many logits of each image; None keeps all.
        batch_size: images at once.

    Raises:
        DataError: images and teacher cannot be used, or do not fit.
        ValueError: see `write_cache`.
    """
    seed_everything(run.seed)
    val_fraction = images.val_fraction
    if val_fraction is None:
        val_fraction = PRESETS["paper" if may_use_cuda(run) else "quick"]["val_fraction"]
    read = open_data(data, images, run, batch_size=batch_size, val_fraction=val_fraction)
    assert options.teacher is not None
    network = load_teacher(options.teacher, read, checkpoint=options.teacher_checkpoint)
    module = RLDModule(network, None, len(read.classes), method="ce")
    train = read.splits.train
    logits = []
    for view in range(views):
        loader = read.loader(train, augment=read.augment, view=view)
        predictions = gather_predictions(module, loader, run=run)
        index = torch.cat([p.indices for p in predictions])
        logits.append(torch.cat([p.logits for p in predictions])[index.argsort()])
    about = {
        "data_hash": read.data_hash,
        "teacher": options.teacher,
        "augment": read.augment,
        "seed": run.seed,
        "size": read.size,
        "num_classes": len(read.classes),
    }
    written = 0
    if is_first_process():
        write_cache(out, logits, about, dtype=getattr(torch, dtype), top_k=top_k)
        written = Path(out).stat().st_size
    exact = read.augment == "none" and dtype == "float32" and top_k is None
    note = (
        "exact: training with --augment none gives what the live teacher gives"
        if exact
        else f"exact for {views} epochs of training; after that the views come round again"
        if dtype == "float32" and top_k is None
        else "approximate: logits are stored in float16 or only the largest of them"
    )
    return Result(
        package=PACKAGE,
        command="rld-distill-cache",
        title=f"{views} views of {len(train):,} images, {len(read.classes)} classes",
        metrics={
            "bytes": written,
            "views": views,
            "images": len(train),
            "left_out": len(read.skipped),
        },
        settings={**about, "data": data, "out": out, "dtype": dtype, "top_k": top_k},
        limits=note,
        data_hash=read.data_hash,
        device=describe_device(module.trainer.strategy.root_device),
        files={"cache": out},
        notes=[note],
    )
