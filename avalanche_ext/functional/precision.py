"""Precision in which losses are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Widen half precision, in which unit lengths and sums are too coarse.

    Args:
        tensor: Any floating type.

    Returns:
        The tensor itself, or a float32 copy of a narrower one.

    Example:
        >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
