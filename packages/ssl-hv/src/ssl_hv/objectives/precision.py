"""Losses are computed in float32 at least, also where the network runs in half precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """Run `loss` outside autocast, with its tensors as float32 (float64 stays float64).

    Args:
        loss: a function whose first argument is a tensor.
    """

    @wraps(loss)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        wide: Any = [_widen(value) for value in args]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*wide, **{name: _widen(value) for name, value in kwargs.items()})

    return run


def _widen(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(torch.promote_types(value.dtype, torch.float32))
