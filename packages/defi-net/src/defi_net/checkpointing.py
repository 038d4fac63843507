"""Gradient checkpointing that leaves batch norms as they would be without it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpointed(module: nn.Module, *inputs: Any) -> Any:
    """Return ``module(*inputs)``; its inner values are computed again in the backward pass.

    Args:
        module: called on `inputs`. Its batch norms see each batch once.
        *inputs: tensors, or lists of tensors.
    """
    if not torch.is_grad_enabled():
        return module(*inputs)

    def run() -> Any:  # on copies of lists: a module may change its own
        return module(*(list(x) if isinstance(x, list) else x for x in inputs))

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _kept_statistics(module)

    return checkpoint(run, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def _kept_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms move copies of their running statistics."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [dict(norm.named_buffers()) for norm in norms]
    try:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, value in buffers.items():
                setattr(norm, name, value.clone())
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, value in buffers.items():
                setattr(norm, name, value)
