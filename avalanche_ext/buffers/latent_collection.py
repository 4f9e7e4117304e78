"""Latents of data sets, and of the batches that pass while one trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from avalanche_ext.buffers.latent import LatentBuffer
from avalanche_ext.loaders import make_loader
from avalanche_ext.models.latent_cut import LatentCut

#: Samples read twice, at least, to find random transforms.
_COMPARED = 64


class LatentCollection:
    """Copies chosen latents out of the batches of one epoch, with their labels.

    Args:
        buffer: Chooses, and gets them in the end.
        experience: Number of the experience, from 0.
        iterations: Batches of the epoch.
        current: Samples in each.
        device: Where the batches are.
    """

    def __init__(
        self,
        buffer: LatentBuffer,
        experience: int,
        *,
        iterations: int,
        current: int,
        device: torch.device,
    ) -> None:
        self.buffer, self.experience, self.current = buffer, experience, current
        chosen, order = buffer.choose(iterations * current, experience).sort()
        counts = (chosen // current).bincount(minlength=iterations).tolist()
        self._rows = torch.split((chosen % current).to(device), counts)
        self._places = torch.split(order.to(device), counts)
        self._n, self._iterations, self._seen = len(chosen), iterations, 0
        self._kept: list[Tensor] = []
        self._fits = True

    @property
    def complete(self) -> bool:
        """Whether all batches have passed, in the size that was announced."""
        return self._fits and self._seen == self._iterations

    def add(self, latents: Tensor, labels: Tensor, task_labels: Tensor | None) -> None:
        """Look at the next batch.

        Args:
            latents: Shape ``(B, ...)``; what is kept of them is copied.
            labels: Shape ``(B,)``.
            task_labels: Shape ``(B,)``; None on streams without.
        """
        self._fits &= len(latents) == self.current and self._seen < self._iterations
        if not self._fits:
            return
        rows, places = self._rows[self._seen], self._places[self._seen]
        self._seen += 1
        fields = [latents, labels, *([] if task_labels is None else [task_labels])]
        if not self._kept:  # room for all, so that latents are in memory once
            self._kept = [f.new_empty(self._n, *f.shape[1:]) for f in fields]
        for kept, field in zip(self._kept, fields, strict=True):
            kept[places] = field[rows]
        if self.buffer.dtype == "uint8" and self.buffer.stored is None:
            self.buffer.observe(*torch.aminmax(latents))

    def insert(self) -> None:
        """Put what was chosen into the buffer."""
        latents, labels, *tasks = self._kept
        self.buffer.insert(
            latents,
            labels,
            experience=self.experience,
            task_labels=tasks[0] if tasks else None,
        )


def insert_latents_of(
    dataset: Any,
    cut: LatentCut,
    buffer: LatentBuffer,
    experience: int,
    *,
    batch_size: int,
    device: torch.device,
    memory_resident: Literal["auto"] | bool = "auto",
    generator: torch.Generator | None = None,
) -> None:
    """Compute latents of random samples of a data set, and put them into a buffer.

    Args:
        dataset: An Avalanche dataset in the transform group to use.
        cut: What is below it is run, in evaluation mode.
        buffer: Chooses the samples.
        experience: Number of the experience, from 0.
        batch_size: Samples at once.
        device: Where the model is.
        memory_resident: See `make_loader`.
        generator: See `make_loader`.
    """
    chosen = buffer.choose(len(dataset), experience)
    if not len(chosen):
        return
    # Not of a subset: the host's forgets transforms that were replaced.
    loader = make_loader(
        dataset,
        batch_size=batch_size,
        shuffle=False,
        device=device,
        memory_resident=memory_resident,
        generator=generator,
    )
    rows, order = chosen.sort()
    latents, fields = _latents_of(_picked(loader, rows), order, cut, device)
    buffer.insert(
        latents,
        fields[0],
        experience=experience,
        task_labels=fields[-1] if len(fields) > 1 else None,
    )


def cached_latents(
    dataset: Any,
    cut: LatentCut,
    *,
    batch_size: int,
    device: torch.device,
    memory_resident: Literal["auto"] | bool = "auto",
) -> TensorDataset:
    """All latents of a data set in place of its inputs.

    Args:
        dataset: An Avalanche dataset in the transform group to use.
        cut: What is below it is run, in evaluation mode.
        batch_size: As later in training, so that rounding is the same.
        device: Where the model is.
        memory_resident: See `make_loader`.

    Returns:
        Items ``(latent, label, ...)``, on the CPU.

    Raises:
        ValueError: If the transforms are random: a sample read twice differs.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        loader = make_loader(
            dataset,
            batch_size=batch_size,
            shuffle=False,
            device=device,
            memory_resident=memory_resident,
            generator=torch.Generator(),
        )
        # small batches: one alone may be left as it is by chance
        n = -(-_COMPARED // batch_size)
        twice = islice(zip(loader, loader, strict=True), n)
        if not all(torch.equal(first[0], second[0]) for first, second in twice):
            raise ValueError(
                "cache_current is True, but transforms of the training data are "
                "random: samples read twice differ; wanted deterministic transforms, "
                "or cache_current=False"
            )
        places = torch.arange(len(dataset))
        latents, fields = _latents_of(loader, places, cut, device, batch_size)
    return TensorDataset(latents, *fields)


def _picked(loader: Iterable[Any], rows: Tensor) -> Iterator[list[Tensor]]:
    """Of each batch the samples among some rows, ascending, of the data set."""
    start = 0
    for batch in loader:
        end = start + len(batch[0])
        mine = rows[(rows >= start) & (rows < end)] - start
        if len(mine):
            yield [field[mine.to(field.device)] for field in batch]
        start = end


def _latents_of(
    loader: Iterable[Any],
    places: Tensor,
    cut: LatentCut,
    device: torch.device,
    batch_size: int = 0,
) -> tuple[Tensor, list[Tensor]]:
    """Latents and other fields of all samples, each in its place, on the CPU.

    Batches smaller than ``batch_size`` are filled up.
    """
    kept: list[Tensor] = []
    start = 0
    for batch in loader:
        x, *others = (field.to(device) for field in batch)
        n, t = len(x), others[-1] if len(others) > 1 else None
        if n < batch_size:
            again = torch.arange(batch_size, device=device) % n
            x, t = x[again], None if t is None else t[again]
        fields = [cut.latents(x, t)[:n], *others]
        if not kept:  # room for all, so that latents are in memory once
            shapes = [(len(places), *field.shape[1:]) for field in fields]
            kept = [
                torch.empty(shape, dtype=field.dtype)
                for shape, field in zip(shapes, fields, strict=True)
            ]
        for all_of_them, field in zip(kept, fields, strict=True):
            all_of_them[places[start : start + n]] = field.cpu()
        start += n
    return kept[0], kept[1:]
