"""A whole data set, batch by batch, on a device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from avalanche_ext.loaders.resident_loader import make_loader


def batches_of(
    dataset: Any,
    device: torch.device,
    *,
    batch_size: int,
    memory_resident: Literal["auto"] | bool = "auto",
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Inputs, targets and task labels of a data set in its order.

    Args:
        dataset: An Avalanche dataset in the transform group to use; may be empty.
        device: Where the model is.
        batch_size: Samples at once, >= 1.
        memory_resident: See `make_loader`.

    Yields:
        ``(x, y, t)``, t None on streams without task labels.
    """
    if not len(dataset):
        return
    loader = make_loader(
        dataset,
        batch_size=batch_size,
        shuffle=False,
        device=device,
        memory_resident=memory_resident,
    )
    for batch in loader:
        x, y, *rest = (field.to(device) for field in batch)
        yield x, y, rest[-1] if rest else None
