"""`defi-net-export`: a saved network as safetensors and ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from papercommons.files import hash_saved, prepare_out
from papercommons.onnx_export import check_onnx, write_onnx
from papercommons.report import Result
from torch import Tensor, nn
from torch.export import Dim

from defi_net.model import DeFINet
from defi_net.options import PACKAGE
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
        check_onnx(PACKAGE)
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
        difference = export_onnx(model, folder / "model.onnx")
        files["onnx"] = str(folder / "model.onnx")
    notes = []
    if difference is not None:
        notes = [
            f"ONNX against torch at two sizes: largest difference {difference:.2g}",
            "its input: images, float32 in [0, 1], (N, 3, H, W), sides divisible by "
            f"{model.multiple}; its outputs: edge and probability, (N, 1, H, W)",
        ]
    result = Result(
        package=PACKAGE,
        command="defi-net-export",
        title=f"{checkpoint}: {sum(p.numel() for p in model.parameters()):,} parameters, exported",
        rows=[{"format": kind, "file": path} for kind, path in files.items()],
        metrics={"onnx_largest_difference": difference},
        settings=settings,
        limits=LIMITS,
        data_hash=hash_saved(checkpoint),
        device="cpu",
        files=files,
        notes=notes,
    )
    result.save(folder)
    return result


def export_onnx(model: DeFINet, path: Path) -> float:
    """Write an ONNX file for any batch and any size; return its largest difference from torch.

    Args:
        model: in evaluation mode.
        path: the file.

    Raises:
        DataError: see `papercommons.onnx_export.write_onnx`.
    """
    unit = model.multiple
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, 8 * unit, 9 * unit), (3, 3, 5 * unit, 6 * unit), (1, 3, 12 * unit, 7 * unit)
    example, *checked = (torch.rand(shape, generator=generator) for shape in shapes)
    return write_onnx(
        ExportedNetwork(model).eval(),
        path,
        outputs=["edge", "probability"],
        dynamic={
            0: Dim("batch", min=1, max=4096),
            2: unit * Dim("rows", min=2, max=4096),
            3: unit * Dim("columns", min=2, max=4096),
        },
        example=example,
        checked=checked,
        reference=model.edge_and_probability,
    )
