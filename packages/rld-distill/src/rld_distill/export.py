"""Classifiers for use elsewhere: safetensors with a card, and ONNX checked against torch."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from papercommons.errors import DataError, reason
from papercommons.files import atomic_path
from papercommons.report import Result
from torch import nn

from rld_distill.saved import load_classifier


def export_classifier(source: Path, out: str, formats: Sequence[str]) -> Result:
    """Write the classifier in each format and return what was written.

    Args:
        source: folder of a saved classifier.
        out: folder.
        formats: safetensors, onnx.

    Raises:
        DataError: the ONNX file would give other answers, or onnx is not installed.
    """
    network, config = load_classifier(source)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    difference = None
    if "safetensors" in formats:
        for name in ("model.safetensors", "config.json", "README.md"):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        files["safetensors"] = str(folder / "model.safetensors")
    if "onnx" in formats:
        path = folder / "model.onnx"
        difference = write_onnx(network, path, config["image_size"])
        files["onnx"] = str(path)
    return Result(
        package="rld-distill",
        command="rld-distill-export",
        title=f"{config['model']}, {config['num_classes']} classes, exported",
        metrics={"onnx_largest_difference": difference},
        settings={"checkpoint": str(source), "out": out, "formats": list(formats)},
        limits="Input must be prepared as config.json says.",
        files=files,
        notes=[]
        if difference is None
        else [f"ONNX against torch: largest difference of a logit {difference:.2g}"],
    )


def write_onnx(network: nn.Module, path: Path, image_size: int) -> float:
    """Write an ONNX file for any batch size; return its largest difference from torch.

    Args:
        network: in evaluation mode.
        path: the file.
        image_size: height and width of its input.

    Raises:
        DataError: onnx, onnxscript or onnxruntime is missing, the exporter fails (that of torch
            2.6 does), or a logit differs by more than 1e-3 of the largest.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"ONNX needs {error.name}; install it with pip install 'rld-distill[onnx]', or pass "
            "--formats safetensors"
        ) from None
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
        except Exception as error:  # torch's exporter and onnxscript raise a dozen kinds
            raise DataError(
                f"{path}: not written: the exporter of torch {torch.__version__} failed "
                f"({reason(error)}); install a newer torch, or pass --formats safetensors"
            ) from error
        assert program is not None
        program.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        many = torch.cat([images, images.flip(0), images[:1]])
        got = torch.from_numpy(session.run(None, {"images": many.numpy()})[0])
        with torch.inference_mode():
            wanted = network(many)
        difference = float((got - wanted).abs().max())
        if difference > 1e-3 * float(wanted.abs().max()):
            raise DataError(f"{path}: not written: ONNX differs from torch by {difference:.3g}")
    return difference
