"""Networks as ONNX files that are checked against torch before they are kept."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from papercommons.errors import DataError, missing_library, reason
from papercommons.files import atomic_path


def check_onnx(package: str) -> None:
    """Raise DataError unless what ONNX needs is installed.

    Args:
        package: whose extra ``onnx`` brings it.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_library(
            "ONNX", str(error.name), f"{package}[onnx]", instead="pass --formats safetensors"
        ) from None


def write_onnx(
    network: nn.Module,
    path: Path,
    *,
    outputs: Sequence[str],
    dynamic: dict[int, Any],
    example: Tensor,
    checked: Sequence[Tensor],
    reference: Callable[[Tensor], tuple[Tensor, ...]],
    tolerance: float = 1e-3,
) -> float:
    """Write an ONNX file with one input, ``images``; return its largest difference from torch.

    Args:
        network: in evaluation mode; takes images.
        path: the file.
        outputs: their names.
        dynamic: dimension of the input -> its `torch.export.Dim`.
        example: images to trace with, float32.
        checked: batches that the file is checked on, of other sizes where those are dynamic.
        reference: what torch makes of a batch, one tensor per output.
        tolerance: largest difference allowed, as a share of the largest output.

    Raises:
        DataError: the exporter fails (that of torch 2.6 does), or the answers differ; nothing is
            written.
    """
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=list(outputs),
                dynamic_shapes=(dynamic,),
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
        differences, sizes = [], []
        for batch in checked:
            with torch.inference_mode():
                wanted = reference(batch)
            got = session.run(None, {"images": batch.numpy()})
            for ours, theirs in zip(wanted, got, strict=True):
                differences.append((ours - torch.from_numpy(theirs)).abs().max())
                sizes.append(ours.abs().max())
        difference = float(torch.stack(differences).max())
        if not difference <= tolerance * float(torch.stack(sizes).max()):  # NaN is none
            raise DataError(f"{path}: not written: ONNX differs from torch by {difference:.3g}")
    return difference
