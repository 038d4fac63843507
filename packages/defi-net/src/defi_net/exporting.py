"""`defi-net-export`: a saved network as safetensors and ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from papercommons.errors import DataError, reason
from papercommons.files import atomic_path, prepare_out
from papercommons.report import Result
from torch import Tensor, nn
from torch.export import Dim

from defi_net.model import DeFINet
from defi_net.saved import LIMITS, load_network

NOT_THE_NETWORKS = ("package", "version", "limits", "model")


class ExportedNetwork(nn.Module):
    """What the ONNX file computes: images in [0, 1] to probabilities, without padding.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: DeFINet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities of "edge" and of "inpainted", each (N, 1, H, W).

        Args:
            images: float32 in [0, 1], shape (N, 3, H, W), sides divisible by `DeFINet.multiple`.
        """
        model = self.model
        maps = model.neck(model.backbone(model.stem(model.normalize(images))))
        edge, mask = model.head(maps)
        if model.backbone.stride > 1:
            size = images.shape[-2:]
            edge, mask = (
                nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
                for logits in (edge, mask)
            )
        return edge.sigmoid(), mask.sigmoid()


def export_network(checkpoint: str, out: str, formats: Sequence[str], overwrite: bool) -> Result:
    """Write a network in each format and return what was written.

    Args:
        checkpoint: folder of a run or of a saved network, or file of a published checkpoint.
        out: folder.
        formats: safetensors, onnx.
        overwrite: empty `out` first.

    Raises:
        DataError: no network, onnx is not installed, or the ONNX file would give other answers.
    """
    model, config = load_network(checkpoint)
    if "onnx" in formats:
        check_onnx()
    settings: dict[str, Any] = {"checkpoint": checkpoint, "out": out, "formats": list(formats)}
    folder = prepare_out(out, settings, overwrite=overwrite)
    files: dict[str, str] = {}
    difference = None
    if "safetensors" in formats:
        about = {k: v for k, v in config.items() if k not in NOT_THE_NETWORKS}
        model.save_pretrained(
            folder, **({"made_by": f"checkpoint {Path(checkpoint).name}"} | about)
        )
        files["safetensors"] = str(folder / "model.safetensors")
    if "onnx" in formats:
        difference = write_onnx(model, folder / "model.onnx")
        files["onnx"] = str(folder / "model.onnx")
    notes = []
    if difference is not None:
        notes = [
            f"ONNX against torch at two sizes: largest difference {difference:.2g}",
            "its input: images, float32 in [0, 1], (N, 3, H, W), sides divisible by "
            f"{model.multiple}; its outputs: edge and probability, (N, 1, H, W)",
        ]
    result = Result(
        package="defi-net",
        command="defi-net-export",
        title=f"{checkpoint}: {sum(p.numel() for p in model.parameters()):,} parameters, exported",
        rows=[{"format": kind, "file": path} for kind, path in files.items()],
        metrics={"onnx_largest_difference": difference},
        settings=settings,
        limits=LIMITS,
        data_hash=config.get("data_hash"),
        device="cpu",
        files=files,
        notes=notes,
    )
    result.save(folder)
    return result


def check_onnx() -> None:
    """Raise DataError unless what ONNX needs is installed."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DataError(
            f'ONNX needs {error.name}; run: pip install "defi-net[onnx]", or pass --formats '
            "safetensors"
        ) from None


def write_onnx(model: DeFINet, path: Path) -> float:
    """Write an ONNX file for any batch and any size; return its largest difference from torch.

    Args:
        model: in evaluation mode.
        path: the file.

    Raises:
        DataError: the exporter fails (that of torch 2.6 does), or a probability differs by more
            than 1e-3.
    """
    import onnxruntime

    network = ExportedNetwork(model).eval()
    unit = model.multiple
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 8 * unit, 9 * unit, generator=generator)
    sides = {2: unit * Dim("rows", min=2, max=4096), 3: unit * Dim("columns", min=2, max=4096)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=["edge", "probability"],
                dynamic_shapes=({0: Dim("batch", min=1, max=4096), **sides},),
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
        difference = 0.0
        for shape in ((3, 3, 5 * unit, 6 * unit), (1, 3, 12 * unit, 7 * unit)):
            batch = torch.rand(shape, generator=generator)
            with torch.inference_mode():
                wanted = model.edge_and_probability(batch)
            got = session.run(None, {"images": batch.numpy()})
            for ours, theirs in zip(wanted, got, strict=True):
                difference = max(difference, float((ours - torch.from_numpy(theirs)).abs().max()))
        if not difference <= 1e-3:
            raise DataError(f"{path}: not written: ONNX differs from torch by {difference:.3g}")
    return difference
