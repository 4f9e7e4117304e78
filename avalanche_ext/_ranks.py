"""Sums and gathers over the processes of a distributed run; nothing in a single one."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def n_ranks() -> int:
    """Number of processes that train together.

    Returns:
        1 where `torch.distributed` is not in use.
    """
    return dist.get_world_size() if _in_use() else 1


def total_over_ranks(tensor: Tensor) -> Tensor:
    """Sum over all processes, the same bits on each.

    Args:
        tensor: Of the same shape on each process.

    Returns:
        The sum; the tensor itself in a single process.
    """
    if n_ranks() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def rows_of_all_ranks(tensor: Tensor) -> Tensor:
    """Rows of all processes, one after the other, with their gradient.

    A loss computed from them is the same on each process. The gradients of all its
    copies come together here, so that the mean over the processes, which
    `torch.nn.parallel.DistributedDataParallel` takes, is the gradient of that loss.

    Args:
        tensor: Of the same shape on each process.

    Returns:
        Shape ``(ranks * B, ...)``; the tensor itself in a single process.
    """
    if n_ranks() == 1:
        return tensor
    return torch.cat(all_gather(tensor))  # type: ignore[no-untyped-call]


def _in_use() -> bool:
    return dist.is_available() and dist.is_initialized()
