"""Batches from images held in memory, augmented by the batch.

A dataset whose raw images lie in memory (CIFAR, MNIST and their relatives, tensor
datasets) or can be read once (image files of one size) and whose transforms are known
(``ToTensor``, ``Normalize``, ``RandomCrop``, flips, deterministic resizing, cropping
and padding) is held as one tensor of raw pixels on the training device. Each batch is
gathered from it and transformed as a whole, which gives the same distribution as
transforming image by image, the same bits where nothing is random, at a fraction of
the cost. All else goes through torch's ``DataLoader``.

The tensor belongs to the dataset below a benchmark: all its experiences, and the
exemplar buffers filled from them, share it and add only row numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from avalanche.benchmarks.utils.data_loader import collate_from_data_or_kwargs
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader

from avalanche_ext.loaders.content import Content, content
from avalanche_ext.loaders.errors import NotResidentError
from avalanche_ext.loaders.leaves import raw_items, stored
from avalanche_ext.loaders.walk import Part, parts

MemoryResident = Literal["auto"] | bool

# Arguments of torch's DataLoader that Avalanche's ``train()`` takes under their names.
_OF_TRAIN = ("num_workers", "pin_memory", "persistent_workers")

# Arguments of torch's DataLoader about how, not which, items are loaded.
_WORKERS = frozenset(
    (
        *_OF_TRAIN,
        "prefetch_factor",
        "timeout",
        "worker_init_fn",
        "multiprocessing_context",
        "pin_memory_device",
        "in_order",
    )
)


class ResidentLoader:
    """Batches ``[x, y, ...]`` on a device, made from images held there.

    Every iteration is a new epoch. All its random numbers are drawn when it begins, so
    that they depend neither on the batch size nor on what else draws meanwhile, and no
    batch waits for the device. Without shuffling and without random transforms nothing
    is drawn. The dataset's transform group is the one current at construction.

    Args:
        dataset: An Avalanche dataset (or one of torch's) of N samples.
        batch_size: Samples in a batch, > 0.
        shuffle: Take the samples in a new uniformly random order in each epoch.
        device: Where the images are held and the batches made.
        generator: Source of the order and of the augmentation, on the CPU; None means
            torch's default generator.
        drop_last: Leave out a last batch that is smaller than the others.
        trusted: Hold datasets of unknown classes as well, reading each item once. The
            caller vouches that their items are the same each time.

    Raises:
        ValueError: If the batch size is not positive or the generator is not one of
            the CPU.
        NotResidentError: If the dataset cannot be held in memory (a ValueError).

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.arange(6).view(3, 2))
        >>> [x.tolist() for x, in ResidentLoader(data, batch_size=2)]
        [[[0, 1], [2, 3]], [[4, 5]]]
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        shuffle: bool = False,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        trusted: bool = False,
    ) -> None:
        """Hold the dataset."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, wanted at least 1")
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(f"generator is on {generator.device}, wanted on cpu")
        self.batch_size = batch_size
        self.shuffle = shuffle
        # "cuda" means the current CUDA device: ask for its full name
        self.device = torch.empty(0, device=device).device
        self.generator = generator
        self.drop_last = drop_last
        self._content: Content = content(dataset, device=self.device, trusted=trusted)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(len(self._content), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[Tensor]]:
        """Make the batches of one epoch."""
        held, g = self._content, self.generator
        n = len(held)
        order = torch.randperm(n, generator=g) if self.shuffle else torch.arange(n)
        order = order[: len(self) * self.batch_size]
        uniform = torch.rand(len(order), held.draws, generator=g).to(self.device)
        images = self._one_group if len(held.groups) == 1 else self._many_groups
        there = order.to(self.device)
        fields = [torch.split(f[there], self.batch_size) for f in held.fields]
        for x, *others in zip(images(order, uniform), *fields, strict=True):
            yield [x, *others]

    def _one_group(self, order: Tensor, uniform: Tensor) -> Iterator[Tensor]:
        """Make the images of samples that all share tensor and transforms."""
        (group,) = self._content.groups
        rows = torch.split(self._content.rows[order.to(self.device)], self.batch_size)
        numbers = torch.split(uniform, self.batch_size)
        yield from map(group.batch, rows, numbers)

    def _many_groups(self, order: Tensor, uniform: Tensor) -> Iterator[Tensor]:
        """Make each batch group after group, then put it in order.

        How is planned for the whole epoch on the CPU: no batch waits for the device.
        """
        held, size = self._content, self.batch_size
        batch = torch.arange(len(order)) // size
        key = batch * len(held.groups) + held.group_of[order]
        sorted_by_group = key.argsort(stable=True)
        counts = key.bincount(minlength=len(self) * len(held.groups))
        back = (sorted_by_group.argsort() - batch * size).to(self.device)
        rows = held.rows[order[sorted_by_group].to(self.device)]
        for some, numbers, places, each in zip(
            torch.split(rows, size),
            torch.split(uniform, size),
            torch.split(back, size),
            counts.view(len(self), -1).tolist(),
            strict=True,
        ):
            split = zip(
                torch.split(some, each), torch.split(numbers, each), strict=True
            )
            pieces = [
                group.batch(*mine)
                for group, mine in zip(held.groups, split, strict=True)
                if len(mine[0])
            ]
            yield torch.cat(pieces).index_select(0, places)


def make_loader(
    dataset: Any,
    *,
    batch_size: int,
    shuffle: bool,
    device: torch.device | str,
    memory_resident: MemoryResident = "auto",
    generator: torch.Generator | None = None,
    drop_last: bool = False,
    **dataloader_kwargs: Any,
) -> ResidentLoader | DataLoader[Any]:
    """Make a loader from images in memory where that is possible.

    Args:
        dataset: An Avalanche dataset in the transform group that is to be used.
        batch_size: Samples in a batch, > 0.
        shuffle: Take the samples in a new uniformly random order in each epoch.
        device: Where images are held. Batches of torch's loader come on the CPU as
            ever; ``.to(device)`` costs nothing for those that are there already.
        memory_resident: "auto" holds the data where they are known to be the same
            each time, fit, and have known transforms. True insists, and takes items of
            unknown dataset classes to be the same each time. False never does.
        generator: Source of order and augmentation (torch's loader: of the order), on
            the CPU; None means torch's default generator. Without ``shuffle`` torch's
            loader draws from a generator of its own.
        drop_last: Leave out a last batch that is smaller than the others.
        **dataloader_kwargs: Further arguments of torch's loader. Those about workers
            and pinned memory mean nothing for images in memory; else memory is pinned
            for a GPU, so that copies to it do not wait.

    Returns:
        An iterable with a length; its batches are lists of tensors ``[x, y, ...]``.

    Raises:
        ValueError: If an argument is out of its range, or ``memory_resident`` is True
            and the data cannot be held; the message names the reason.

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.zeros(5, 1, 8, 8))
        >>> len(make_loader(data, batch_size=2, shuffle=True, device="cpu"))
        3
    """
    if not (isinstance(memory_resident, bool) or memory_resident == "auto"):
        raise ValueError(
            f"memory_resident is {memory_resident!r}, wanted 'auto', True or False"
        )
    if memory_resident:
        try:
            if unknown := set(dataloader_kwargs) - _WORKERS:
                raise NotResidentError(f"{sorted(unknown)} need torch's DataLoader")
            return ResidentLoader(
                dataset,
                batch_size=batch_size,
                shuffle=shuffle,
                device=device,
                generator=generator,
                drop_last=drop_last,
                trusted=memory_resident is True,
            )
        except NotResidentError as error:
            if memory_resident is True:
                raise NotResidentError(
                    f"memory_resident=True, but the data cannot be held: {error}"
                ) from error
    if not shuffle:  # torch's loader draws a seed even for an order that is fixed
        generator = torch.Generator()
    # Avalanche copies batches to a GPU without waiting, which needs pinned memory.
    if dataloader_kwargs.get("pin_memory") is None:
        dataloader_kwargs["pin_memory"] = torch.device(device).type == "cuda"
    collate_from_data_or_kwargs(dataset, dataloader_kwargs)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        generator=generator,
        drop_last=drop_last,
        **dataloader_kwargs,
    )


def worker_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments of ``train()`` that are about workers, for `make_loader`.

    Args:
        arguments: Keyword arguments of ``train()``; Avalanche hands on all of them.

    Returns:
        Those of them that torch's loader takes.

    Example:
        >>> worker_options({"num_workers": 2, "reset_optimizer_state": True})
        {'num_workers': 2}
    """
    return {name: arguments[name] for name in _OF_TRAIN if name in arguments}


def image_bytes(dataset: Any) -> int:
    """Return the memory that the raw images of a dataset take.

    Pixels of 8 bits take one byte a channel, whatever the transforms make of them;
    tensors take what they take.

    Args:
        dataset: An Avalanche dataset (or one of torch's). Items of datasets that do not
            keep their images in memory are read.

    Returns:
        Bytes, each sample counted once.

    Raises:
        ValueError: If an item holds neither a PIL image nor a tensor.

    Example:
        >>> image_bytes(torch.utils.data.TensorDataset(torch.zeros(5, 1, 8, 8)))
        1280
    """
    return sum(_part_bytes(part) for part in parts(dataset))


def _part_bytes(part: Part) -> int:
    if known := stored(part.leaf):
        images = known.images(part.leaf)
        return images.nbytes // len(images) * len(part.indices)
    raw = raw_items(part.leaf)
    return sum(_item_bytes(raw[index][0]) for index in part.indices.tolist())


def _item_bytes(image: Any) -> int:
    if isinstance(image, Image):
        return image.width * image.height * len(image.getbands())
    if isinstance(image, Tensor):
        return image.nbytes
    raise ValueError(f"an item holds {type(image).__name__}, wanted an image or tensor")
