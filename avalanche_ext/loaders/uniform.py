"""Uniform shuffling in place of batches balanced by task label."""

from __future__ import annotations

from typing import Any, Literal

import torch

from avalanche_ext.loaders.resident_loader import make_loader


def shuffle_uniformly(
    strategy: Any,
    *,
    memory_resident: Literal["auto"] | bool = "auto",
    generator: torch.Generator | None = None,
    **kwargs: Any,
) -> None:
    """Let every sample of the adapted data be seen once an epoch.

    Where data have several task labels, Avalanche balances batches by label and
    repeats samples of the rarer ones. Other loaders stay.

    Args:
        strategy: The strategy, before an experience.
        memory_resident: See `make_loader`.
        generator: See `make_loader`.
        **kwargs: Those of ``train()``.
    """
    if type(strategy.dataloader).__name__ == "TaskBalancedDataLoader":
        kwargs.setdefault("shuffle", True)
        strategy.dataloader = make_loader(
            strategy.adapted_dataset,
            batch_size=strategy.train_mb_size,
            device=strategy.device,
            memory_resident=memory_resident,
            generator=generator,
            **kwargs,
        )
