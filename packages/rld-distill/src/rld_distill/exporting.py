"""Classifiers for use elsewhere: safetensors with a card, and ONNX checked against torch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from papercommons.files import prepare_out
from papercommons.onnx_export import check_onnx, write_onnx
from papercommons.report import Result

from rld_distill.options import PACKAGE
from rld_distill.saved import load_network


def export_classifier(source: Path, out: str, formats: Sequence[str], overwrite: bool) -> Result:
    """Write the classifier in each format and return what was written.

    Args:
        source: folder of a saved classifier.
        out: folder.
        formats: safetensors, onnx.
        overwrite: empty `out` first.

    Raises:
        DataError: the ONNX file would give other answers, or onnx is not installed.
    """
    network, config = load_network(source)
    if "onnx" in formats:
        check_onnx(PACKAGE)
    settings: dict[str, Any] = {"checkpoint": str(source), "out": out, "formats": list(formats)}
    folder = prepare_out(out, settings, overwrite=overwrite)
    files: dict[str, str] = {}
    difference = None
    if "safetensors" in formats:
        for name in ("model.safetensors", "config.json", "README.md"):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        files["safetensors"] = str(folder / "model.safetensors")
    if "onnx" in formats:
        path, side = folder / "model.onnx", config["size"]
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        difference = write_onnx(
            network,
            path,
            outputs=["logits"],
            dynamic={0: torch.export.Dim("batch", min=1)},
            example=images,
            checked=[torch.cat([images, images.flip(0), images[:1]])],
            reference=lambda batch: (network(batch),),
        )
        files["onnx"] = str(path)
    result = Result(
        package=PACKAGE,
        command="rld-distill-export",
        title=f"{config['model']}, {config['num_classes']} classes, exported",
        metrics={"onnx_largest_difference": difference},
        settings=settings,
        limits="Input must be prepared as config.json says.",
        data_hash=config.get("data_hash"),
        device="cpu",
        files=files,
        notes=[]
        if difference is None
        else [f"ONNX against torch: largest difference of a logit {difference:.2g}"],
    )
    result.save(folder)
    return result
