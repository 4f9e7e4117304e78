"""Feed any strategy from images held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from avalanche.benchmarks import CLExperience
from avalanche.benchmarks.utils.data_loader import TaskBalancedDataLoader
from avalanche.core import SupervisedPlugin
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from avalanche_ext._checks import generator_state, require_loading, restore_generator
from avalanche_ext.loaders import ResidentLoader, make_loader, worker_options


class MemoryResidentPlugin(SupervisedPlugin):
    """Take batches from images held on the device, augmented by the batch.

    ``before_training_exp`` replaces the loader that the strategy's template built. A
    loader that another plugin put in its place (replay) stays, and so do the balanced
    batches Avalanche makes of an experience with several task labels; data that cannot
    be held keep Avalanche's loader, but for a ``generator``. ``before_eval_exp``
    replaces the loader always: with data that cannot be held by torch's loader with a
    random generator of its own, so that evaluating does not change the training that
    goes on afterwards.

    It may stand anywhere among the plugins. ``shuffle`` and ``drop_last`` given to
    ``train()`` are honoured; arguments about workers mean nothing for images in memory.

    Nothing is kept between experiences but the state of the generator, which a
    checkpoint holds. The images stay in memory as long as their dataset.

    Args:
        memory_resident: "auto" holds the data of an experience where that is possible.
            True insists on it. False only changes the evaluation.
        generator: Source of the order and of the augmentation, on the CPU; None means
            torch's default generator.

    Raises:
        ValueError: If an argument is out of its range; on training or evaluation, if
            ``memory_resident`` is True and the data cannot be held.

    Example:
        >>> plugin = MemoryResidentPlugin(memory_resident="auto")
        >>> plugin.state_dict()
        {}
    """

    def __init__(
        self,
        *,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        """Store the arguments."""
        super().__init__()
        require_loading(memory_resident, generator)
        self.memory_resident = memory_resident
        self.generator = generator

    def before_training_exp(
        self,
        strategy: Any,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        **kwargs: Any,
    ) -> None:
        """Replace the template's loader, if the data can be held."""
        resident = self.memory_resident or self.generator is not None
        if not resident or not _made_by_template(strategy):
            return
        loader = make_loader(
            strategy.adapted_dataset,
            batch_size=strategy.train_mb_size,
            shuffle=shuffle,
            device=strategy.device,
            memory_resident=self.memory_resident,
            generator=self.generator,
            drop_last=drop_last,
            **worker_options(kwargs),
        )
        # torch's own, too, where a generator is to govern its order
        if isinstance(loader, ResidentLoader) or self.generator is not None:
            strategy.dataloader = loader

    def before_eval_exp(
        self,
        strategy: Any,
        *,
        shuffle: bool = False,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        persistent_workers: bool = False,
        **kwargs: Any,
    ) -> None:
        """Replace the loader by one that draws no random numbers from elsewhere."""
        if "ffcv_args" in kwargs:
            return
        strategy.dataloader = make_loader(
            strategy.adapted_dataset,
            batch_size=strategy.eval_mb_size,
            shuffle=shuffle,
            device=strategy.device,
            memory_resident=self.memory_resident,
            generator=self.generator,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=persistent_workers and num_workers > 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator, if there is one."""
        return generator_state(self.generator)

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Put the state of the generator back.

        Args:
            state: What ``state_dict`` returned.
            experiences: The experiences trained so far; not needed here.

        Raises:
            ValueError: If only one of the two has a generator.
        """
        restore_generator(self.generator, state)


def _made_by_template(strategy: Any) -> bool:
    """Whether the strategy's loader is the one its template builds from its data."""
    loader, data = strategy.dataloader, strategy.adapted_dataset
    size = strategy.train_mb_size
    if type(loader) is TaskBalancedDataLoader:
        # with several task labels its batches are not drawn uniformly
        return (
            len(loader.datasets) == 1
            and len(loader.datasets[0]) == len(data)
            and loader.batch_sizes == [size]
        )
    return (
        type(loader) is DataLoader
        and loader.dataset is data
        and loader.batch_size == size
        and type(loader.sampler) in (RandomSampler, SequentialSampler)
    )
