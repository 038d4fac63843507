"""Rows of all processes, with gradients: so a loss sees the whole batch on any number of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def gather(z: Tensor) -> Tensor:
    """Return the rows of all processes in rank order; on one process, z itself.

    Where every process then computes the same loss of the gathered rows, the mean of the processes'
    parameter gradients (what DistributedDataParallel takes) is the gradient on one process.

    Args:
        z: rows of this process, float, shape (N, ...), the same on every process.

    Returns:
        Shape (processes * N, ...).
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return z
    gathered: Tensor = _Gather.apply(z)
    return gathered


class _Gather(torch.autograd.Function):
    """Gather the rows; backward, sum what all processes want of them and keep one's own."""

    @staticmethod
    def forward(ctx: object, z: Tensor) -> Tensor:
        rows = [torch.empty_like(z) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, z.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
