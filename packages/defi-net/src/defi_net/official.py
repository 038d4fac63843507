"""Checkpoints of the published code: its names for our weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papercommons.checkpoint import load_weights, read_state_dict
from papercommons.errors import DataError
from torch import Tensor

from defi_net.model import DeFINet

OUR_NAMES = {  # beginnings of names; some of its lists run from coarse to fine
    "hrnet.": "backbone.",
    **{f"gfpn.td_fusion.conv1x1_dict.10{i + 1}.": f"neck.top_down.reduce.{i}." for i in range(4)},
    **{f"gfpn.td_fusion.conv1x1_dict.{4 - i}.": f"neck.top_down.mix.{i}." for i in range(4)},
    **{f"gfpn.td_fusion.blocks.{3 - i}.": f"neck.top_down.smooth.{i}." for i in range(4)},
    **{f"gfpn.bu_fusion.conv1x1_dict.{i + 1}.": f"neck.bottom_up.mix.{i}." for i in range(4)},
    "gfpn.bu_fusion.blocks.": "neck.bottom_up.smooth.",
    "gfpn.blocks.": "neck.output.",
    "ream.edge_head.bn1.": "head.ream.edge_head.0.",
    "ream.edge_head.conv1.": "head.ream.edge_head.2.",
    "ream.edge_head.bn2.": "head.ream.edge_head.3.",
    "ream.edge_head.conv2.": "head.ream.edge_head.5.",
    "ream.conv1.": "head.ream.attention.",
    "ream.conv3x3_fuse.": "head.ream.fused.0.",
    "ream.bn_fuse.": "head.ream.fused.1.",
    **{f"ream.conv3x3_{name}.": f"head.ream.{name}.0." for name in ("mid", "low1", "low2")},
    **{f"ream.bn_{name}.": f"head.ream.{name}.1." for name in ("mid", "low1", "low2")},
    **{
        f"dff.ada_learner.conv{i + 1}.{j}.": f"head.saff.learner.{3 * i + j}."
        for i in range(3)
        for j in range(2)
    },
    "dff.low_mid.": "head.saff.low_mid.",
    "dff.high.": "head.saff.high.",
    "dff.high_prior.": "head.saff.prior.",
    "dff.seghead.": "head.saff.classifier.",
}


def is_official(weights: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of the published code.

    Args:
        weights: a state dict; only its names are looked at.
    """
    return any(name.startswith("gfpn.") for name in weights)


def our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of the published code under our names; unknown names stay.

    Args:
        weights: its state dict, names without ``module.``; tensors of any shape stay as they are.
    """
    renamed = {}
    for name, value in weights.items():
        prefix = next((p for p in OUR_NAMES if name.startswith(p)), "")
        renamed[OUR_NAMES.get(prefix, "") + name.removeprefix(prefix)] = value
    return renamed


def load_official(path: str | Path, **options: Any) -> DeFINet:
    """Return the network of a published checkpoint, in evaluation mode.

    It was judged by its authors with the ``official-test`` normalisation, the default here.

    Args:
        path: a file of torch.save or safetensors; ``module.`` in front of names is taken off.
        **options: of `DeFINet`, where they are not the paper's.

    Raises:
        DataError: missing or broken file, other names, or weights of another size.
    """
    weights = read_state_dict(path)
    if not is_official(weights):
        raise DataError(
            f"{path}: no published checkpoint of DeFI-Net: no weight is called gfpn...., the first "
            f"is {next(iter(weights))}; give the folder of a run of this package"
        )
    settings = {"normalization": "official-test", "saff_init": "official", **options}
    model = DeFINet(**settings)
    counts = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    load_weights(model, {**counts, **our_names(weights)}, source=str(path))
    return model.eval()
