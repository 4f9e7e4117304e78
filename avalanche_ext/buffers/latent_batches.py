"""Which latents of a memory go into which mini-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from avalanche_ext._checks import require_choice, require_whole
from avalanche_ext.buffers.latent import LatentBuffer, LatentDtype
from avalanche_ext.buffers.latent_collection import cached_latents
from avalanche_ext.functional.replay_policy import Composition, minibatch_composition
from avalanche_ext.loaders import ResidentLoader, make_loader
from avalanche_ext.models.latent_cut import LatentCut

ReplayOrder = Literal["shuffled", "published"]


def require_replay_options(
    memory_size: Any,
    latent_dtype: Any,
    order: Any,
    below: Any,
    cache_current: Any,
    freeze_first: Any,
) -> None:
    """Refuse options of latent replay that are out of their range.

    Args:
        memory_size: Wanted >= 0.
        latent_dtype: See `LatentBuffer`.
        order: See `LatentBatches`.
        below: ``"frozen"`` or ``"adapt"``.
        cache_current: True or False; not with ``"adapt"``.
        freeze_first: True or False.

    Raises:
        ValueError: For the first that does not fit.
    """
    require_whole(0, memory_size=memory_size)
    require_choice(get_args(LatentDtype), latent_dtype=latent_dtype)
    require_choice(
        (True, False), freeze_first=freeze_first, cache_current=cache_current
    )
    require_choice(("frozen", "adapt"), below=below)
    require_choice(get_args(ReplayOrder), order=order)
    if cache_current and below == "adapt":
        raise ValueError(
            "cache_current is True and below 'adapt', which changes latents in "
            "each batch; wanted one of them"
        )


class LatentBatches:
    """Deals a memory out to the mini-batches of each epoch of an experience.

    Args:
        buffer: The memory, which does not change meanwhile.
        order: ``"shuffled"``: anew in each epoch. ``"published"``: as it lies there,
            and the composition with ``legacy``.
        n_current: Samples of the experience, >= 1.
        batch_size: Of new samples and latents together.
        permutation: Draws a random order of so many.

    Raises:
        ValueError: If the published rule divides by zero.

    Attributes:
        composition: See `minibatch_composition`.
        n_padding: Samples by which the experience is to be filled up: in the published
            order, while there is no memory, to whole batches.
    """

    def __init__(
        self,
        buffer: LatentBuffer,
        order: ReplayOrder,
        n_current: int,
        batch_size: int,
        permutation: Callable[[int], Tensor],
    ) -> None:
        self.buffer, self.order, self._permutation = buffer, order, permutation
        self.n_padding = 0
        published = order == "published"
        if published and not len(buffer):
            self.n_padding = -n_current % batch_size
            whole = (n_current + self.n_padding) // batch_size
            self.composition = Composition(whole, batch_size, 0)
        else:
            places = buffer.max_size if published else len(buffer)
            try:
                self.composition = minibatch_composition(
                    n_current, places, batch_size, legacy=published
                )
            except ValueError as error:
                raise ValueError(
                    f"memory_size is {places}, train_mb_size {batch_size} and the "
                    f"experience has {n_current} samples, for which the published rule "
                    "would divide by zero; wanted a smaller memory_size, another "
                    "train_mb_size, or order='shuffled'"
                ) from error
        self._slots: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._next = 0

    def loader(
        self,
        data: Any,
        cut: LatentCut | None = None,
        *,
        shuffle: bool,
        device: torch.device,
        memory_resident: Literal["auto"] | bool,
        generator: torch.Generator | None,
        **workers: Any,
    ) -> Any:
        """Make the loader of the new samples.

        Args:
            data: Those of the experience, an Avalanche dataset.
            cut: If given, batches hold latents in place of inputs.
            shuffle: Anew in each epoch; the published order does so once.
            device: Where the batches are to be.
            memory_resident: See `make_loader`.
            generator: See `make_loader`.
            **workers: Arguments of torch's loader.

        Returns:
            Its batches all have ``composition.current`` samples.

        Raises:
            ValueError: If latents are wanted and the transforms are random.
        """
        if self.order == "published":
            n = len(data)
            rows = torch.cat([torch.arange(self.n_padding) % n, torch.arange(n)])
            data = _subset(data, rows[self._permutation(len(rows))].tolist())
        options: dict[str, Any] = {
            "batch_size": self.composition.current,
            "shuffle": shuffle and self.order == "shuffled",
            "device": device,
            "generator": generator,
            "drop_last": True,
        }
        loader = make_loader(
            data, memory_resident=memory_resident, **options, **workers
        )
        if cut is None:
            return loader
        latents = cached_latents(
            data,
            cut,
            batch_size=self.composition.current,
            device=device,
            memory_resident=memory_resident,
        )
        # of the same kind, so that it draws the same random numbers
        resident: Any = "auto" if isinstance(loader, ResidentLoader) else False
        return make_loader(latents, memory_resident=resident, **options)

    def deal(self, device: torch.device) -> None:
        """Begin an epoch.

        Args:
            device: Where the batches are.
        """
        self._next, self._slots = 0, []
        iterations, _, replayed = self.composition
        if not replayed:
            return
        m, n = len(self.buffer), iterations * replayed
        if self.order == "published":
            order = torch.arange(min(m, n))
        else:
            order = self._permutation(m)[torch.arange(n) % m]
        labels, tasks = self.buffer.labels, self.buffer.task_labels
        for start in range(0, len(order), replayed):
            rows = order[start : start + replayed]
            own = None if tasks is None else tasks[rows].to(device)
            self._slots.append((rows, labels[rows].to(device), own))

    def append(self, batch: list[Tensor], device: torch.device) -> Tensor | None:
        """Put the labels of the next rows of the memory into the batch.

        Args:
            batch: ``[x, y]`` or ``[x, y, ..., t]``; y and t grow.
            device: Where it is.

        Returns:
            Their latents; None if there are none.

        Raises:
            ValueError: If only the memory or only the batch has task labels.
        """
        slots, at = self._slots, self._next
        self._next += 1
        if self.order == "shuffled" and slots:  # a longer epoch begins again
            at %= len(slots)
        if at >= len(slots):
            return None
        rows, labels, tasks = slots[at]
        if (tasks is None) == (len(batch) > 2):
            raise ValueError(
                f"batches have {len(batch)} fields, unlike in the experience that the "
                "memory is from; wanted task labels in all experiences or in none"
            )
        batch[1] = torch.cat([batch[1], labels])
        if tasks is not None:
            batch[-1] = torch.cat([batch[-1], tasks.to(batch[-1].dtype)])
        return self.buffer.latents(rows, device)


def _subset(data: Any, rows: list[int]) -> Any:
    """A subset that keeps transforms which were replaced.

    The host takes a node whose own transforms were replaced for one without any, and
    leaves it out of the subset.
    """
    data = data._shallow_clone_dataset()
    data._flat_data._can_flatten = False
    return data.subset(rows)
