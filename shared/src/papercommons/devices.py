"""Where and in which number format a command of one process computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from papercommons.cli import ComputeOptions, DeviceOptions
from papercommons.training import make_trainer

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def compute_device(run: ComputeOptions | DeviceOptions) -> torch.device:
    """Return the device that the options of a command mean.

    Args:
        run: options of the command.

    Raises:
        ValueError: it is not there.
    """
    options = DeviceOptions(seed=run.seed, accelerator=run.accelerator, devices="1")
    device: torch.device = make_trainer(options).strategy.root_device
    return device


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager[Any]:
    """Return the context that computes in a number format.

    Args:
        device: where.
        precision: ``bf16-mixed`` or ``16-mixed``; with any other one nothing changes.
    """
    if precision not in _DTYPES:
        return nullcontext()
    return torch.autocast(torch.device(device).type, _DTYPES[precision])
