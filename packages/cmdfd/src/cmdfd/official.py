"""Checkpoints of the official code, and of TalkNet, from which it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from papercommons.checkpoint import load_weights, read_state_dict
from torch import Tensor

from cmdfd.model import CMDFDNet


def load_official(path: str | Path, *, legacy_concat: bool = False) -> CMDFDNet:
    """Return the full-size network with the official weights, in evaluation mode.

    No code from the file is run. What a checkpoint holds beside the network (teachers, heads of
    single streams) is left out.

    Args:
        path: a checkpoint of the official code, or of TalkNet's: a state dict with names such as
            ``model.visualFrontend...`` and ``lossAV.FC.weight``.
        legacy_concat: see `VisualFrontend`; True gives the official code's very numbers.

    Raises:
        DataError: the file is missing or broken, needs pickled code, or lacks weights (they are
            listed).
    """
    net = CMDFDNet(legacy_concat=legacy_concat)
    weights = student_weights(read_state_dict(path), net.state_dict())
    load_weights(net, weights, source=str(path))
    return net.eval()


def student_weights(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of the student by its own names; others are left out.

    Args:
        weights: of a checkpoint, by name, any shapes.
        wanted: the network's own.
    """
    plain = {name.removeprefix("model."): value for name, value in weights.items()}
    return {name: value for name, value in plain.items() if name in wanted}
