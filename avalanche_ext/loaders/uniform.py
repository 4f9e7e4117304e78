"""Uniform shuffling in place of batches balanced by task label."""

from __future__ import annotations

from typing import Any, Literal

import torch

from avalanche_ext.loaders.resident_loader import make_loader, worker_options
from avalanche_ext.loaders.walk import values_of


def require_batch_of_all_tasks(strategy: Any) -> None:
    """Refuse batches smaller than the number of task labels.

    Avalanche's loader, which is made first where there are several, takes at least one
    sample of each into a batch.

    Args:
        strategy: The strategy, once its data are adapted.

    Raises:
        ValueError: If ``train_mb_size`` is too small.
    """
    tasks = getattr(strategy.adapted_dataset, "targets_task_labels", None)
    n = 1 if tasks is None else len({*values_of(tasks)})
    if strategy.train_mb_size < n:
        raise ValueError(
            f"train_mb_size is {strategy.train_mb_size}, but data and memory have {n} "
            f"task labels; wanted at least {n}, one sample of each in a batch"
        )


def shuffle_uniformly(strategy: Any, **kwargs: Any) -> None:
    """Let every sample of the adapted data be seen once an epoch.

    Where data have several task labels, Avalanche balances batches by label and
    repeats samples of the rarer ones. Other loaders stay.

    Args:
        strategy: The strategy, before an experience.
        **kwargs: See `uniform_loader`.
    """
    if type(strategy.dataloader).__name__ == "TaskBalancedDataLoader":
        strategy.dataloader = uniform_loader(strategy, **kwargs)


def uniform_loader(
    strategy: Any,
    *,
    memory_resident: Literal["auto"] | bool = "auto",
    generator: torch.Generator | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    **kwargs: Any,
) -> Any:
    """A loader of the adapted data, each sample once an epoch.

    Args:
        strategy: The strategy, once its data are adapted.
        memory_resident: See `make_loader`.
        generator: See `make_loader`.
        shuffle: See `make_loader`.
        drop_last: See `make_loader`.
        **kwargs: Further ones of ``train()``.

    Returns:
        The loader.
    """
    return make_loader(
        strategy.adapted_dataset,
        batch_size=strategy.train_mb_size,
        shuffle=shuffle,
        device=strategy.device,
        memory_resident=memory_resident,
        generator=generator,
        drop_last=drop_last,
        **worker_options(kwargs),
    )
