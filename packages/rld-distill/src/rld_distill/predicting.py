"""What `rld-distill-predict` does: a class for each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from papercommons.cli import DeviceOptions
from papercommons.data.defects import LeftOut
from papercommons.data.images import read_image
from papercommons.errors import counted
from papercommons.files import hash_files, is_first_process, prepare_out, write_csv
from papercommons.report import Result, Section, describe_device, image_grid_png, write_report
from papercommons.training import gather_predictions

from rld_distill.data import DistillDataset, make_loader
from rld_distill.lightning import RLDModule
from rld_distill.options import PACKAGE
from rld_distill.saved import load_network
from rld_distill.sources import ImageSet, Pictures


def predict_images(
    paths: Sequence[Path],
    checkpoint: str,
    out: str | None,
    batch_size: int,
    skip_bad: bool,
    run: DeviceOptions,
) -> Result:
    """Name the class of each image, and return the result.

    Args:
        paths: the images.
        checkpoint: folder of a run, or of a saved classifier.
        out: folder for predictions.csv and the report; None writes nothing.
        batch_size: images at once.
        skip_bad: leave out images that cannot be read.
        run: where and how to compute.

    Raises:
        DataError: the classifier, or an image, or each of them cannot be used.
    """
    network, config = load_network(checkpoint)
    left_out = LeftOut(skip_bad)
    readable = list(paths)
    if skip_bad:  # else the first one that cannot be read is an error when its turn comes
        readable = []
        for path in paths:
            with left_out.noting():
                read_image(path)
                readable.append(path)
        left_out.check_any(len(readable), "images")
    images = ImageSet(
        torch.zeros(len(readable), dtype=torch.long), [str(p) for p in readable], root=Path()
    )
    dataset = DistillDataset(
        images,
        augment="none",
        size=config["size"],
        mean=config["mean"],
        std=config["std"],
    )
    loader = make_loader(dataset, batch_size=batch_size, num_workers=run.num_workers)
    module = RLDModule(network, None, config["num_classes"], method="ce")
    predictions = gather_predictions(module, loader, run=run)
    order = torch.cat([p.indices for p in predictions]).argsort()
    probabilities = torch.cat([p.logits for p in predictions])[order].softmax(1)
    top = probabilities.topk(min(5, config["num_classes"]))
    names = config["classes"]
    rows = [
        {
            "path": images.names[i],
            "prediction": names[top.indices[i, 0]],
            "probability": float(top.values[i, 0]),
            "top5": " ".join(
                f"{names[c]}:{p:.3f}"
                for c, p in zip(top.indices[i].tolist(), top.values[i].tolist(), strict=True)
            ),
        }
        for i in range(len(probabilities))
    ]
    settings = {"checkpoint": checkpoint, "out": out, "batch_size": batch_size, **run.settings()}
    result = Result(
        package=PACKAGE,
        command="rld-distill-predict",
        title=f"{config['model']} from {checkpoint}: {counted(len(rows), 'image')}",
        rows=rows if out is None else rows[:20],
        metrics={"images": len(rows), "left_out": len(left_out)},
        settings=settings,
        limits="It names one of its classes for any picture, also one that shows none of them; a "
        "probability is calibrated only as far as rld-distill-eval shows.",
        data_hash=hash_files(readable),
        device=describe_device(module.trainer.strategy.root_device),
        notes=left_out.notes(),
    )
    if out is not None and is_first_process():
        folder = prepare_out(out, settings, overwrite=run.overwrite)
        write_csv(folder / "predictions.csv", rows)
        result.files["predictions"] = str(folder / "predictions.csv")
        shown = min(24, len(rows))
        pictures = Pictures(images)
        grid = image_grid_png(
            [pictures[i] for i in range(shown)],
            [f"{row['prediction']}\n{row['probability']:.0%}" for row in rows[:shown]],
        )
        section = Section(
            "Pictures", figure=grid, caption="The first images with the class named for each."
        )
        write_report(folder / "report.html", result, [section])
        result.save(folder)
    return result
