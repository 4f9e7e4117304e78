"""A whole dataset held in memory: images, rows, operations on batches, labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from avalanche.benchmarks.utils.classification_dataset import lookup
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from torch import Tensor
from torch.utils.data import default_collate

from avalanche_ext.loaders.batch_transforms import BatchTransform, flatten
from avalanche_ext.loaders.errors import NotResidentError
from avalanche_ext.loaders.leaves import own_transforms, stored
from avalanche_ext.loaders.recognise import recognise, split_prefix
from avalanche_ext.loaders.store import Held, hold
from avalanche_ext.loaders.walk import Part, parts, values_of


@dataclass(frozen=True, eq=False)
class Group:
    """Samples that share their image tensor and their operations."""

    images: Tensor
    """Raw images of a leaf dataset, shape ``(M, ...)``."""
    operations: tuple[BatchTransform, ...]
    """What makes a batch of them."""

    @property
    def draws(self) -> int:
        """Random numbers needed for each image."""
        return sum(operation.draws for operation in self.operations)

    def batch(self, rows: Tensor, uniform: Tensor) -> Tensor:
        """Make a batch of transformed images.

        Args:
            rows: Rows of ``images``, shape ``(B,)``.
            uniform: Numbers in ``[0, 1)``, shape ``(B, draws)`` or wider.

        Returns:
            Shape ``(B, ...)``; never a view of ``images``.
        """
        x = self.images.index_select(0, rows)
        used = 0
        for operation in self.operations:
            columns = uniform
            if operation.draws:
                columns = uniform[:, used : used + operation.draws]
                used += operation.draws
            x = operation(x, columns)
        return x.contiguous()

    def alike(self, other: Group) -> bool:
        """Whether one gather serves the samples of both."""
        mine, theirs = (
            (g.images.data_ptr(), g.images.shape, g.images.dtype, g.operations)
            for g in (self, other)
        )
        return mine == theirs


@dataclass(frozen=True, eq=False)
class Content:
    """What a loader needs of a dataset of N samples."""

    groups: tuple[Group, ...]
    group_of: Tensor
    """Number of each sample's group, shape ``(N,)``, on the CPU."""
    rows: Tensor
    """Row of each sample in its group's images, shape ``(N,)``, on the device."""
    fields: tuple[Tensor, ...]
    """What a batch holds after the images, shapes ``(N, ...)``, on the device."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    @property
    def draws(self) -> int:
        """Random numbers needed for each image."""
        return max(group.draws for group in self.groups)


def content(dataset: Any, *, device: torch.device, trusted: bool) -> Content:
    """Hold a dataset in memory.

    Args:
        dataset: An Avalanche dataset in the transform group that is to be used.
        device: Where the images are to be held.
        trusted: The user vouches that items of unknown dataset classes never change.

    Returns:
        The content, in the order of the dataset.

    Raises:
        NotResidentError: If that is not possible; the message says why.
    """
    if len(dataset) == 0:
        raise NotResidentError("the dataset is empty")
    collate = getattr(dataset, "collate_fn", default_collate)
    if collate is not default_collate:
        raise NotResidentError(f"the dataset has its own collate function {collate!r}")
    groups: list[Group] = []
    pieces = []
    for part in parts(dataset):
        group, held, targets = _hold_part(part, device, trusted)
        number = next((i for i, g in enumerate(groups) if g.alike(group)), len(groups))
        if number == len(groups):
            groups.append(group)
        fields = _mapped(held.fields, targets)
        pieces.append(
            (
                torch.from_numpy(part.positions),
                torch.full((len(held.rows),), number),
                torch.from_numpy(held.rows),
                *fields,
            )
        )
    _check_outputs(groups)
    group_of, rows, *fields = _in_order(pieces)
    fields += _attributes(dataset)
    return Content(
        tuple(groups), group_of, rows.to(device), tuple(f.to(device) for f in fields)
    )


def _hold_part(
    part: Part, device: torch.device, trusted: bool
) -> tuple[Group, Held, list[Any]]:
    """Hold one part; return its images, its rows, and the transforms of its labels."""
    own, own_targets = own_transforms(part.leaf)
    transforms = [*flatten(own), *part.transforms]
    prefix, others = split_prefix(transforms, stored=stored(part.leaf) is not None)
    held = hold(part.leaf, part.indices, prefix, device=device, trusted=trusted)
    if not held.pil:  # the prefix was for PIL images only
        others = (*prefix, *others)
    operations = recognise(others, pil=held.pil, dtype=held.images.dtype)
    targets = [*flatten(own_targets), *part.target_transforms]
    return Group(held.images, operations), held, targets


def _mapped(fields: Sequence[Tensor], transforms: Iterable[Any]) -> list[Tensor]:
    """Renumber the labels as Avalanche's class mappings do."""
    mapped = list(fields)
    for transform in transforms:
        if not (isinstance(transform, partial) and transform.func is lookup):
            raise NotResidentError(f"the transform {transform!r} of the labels")
        (mapping,) = transform.args
        mapped[0] = default_collate([mapping[y] for y in mapped[0].tolist()])
    return mapped


def _in_order(pieces: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Join the columns of all pieces and sort them by the first one."""
    kinds = {tuple((c.shape[1:], c.dtype) for c in piece) for piece in pieces}
    if len(kinds) > 1:
        raise NotResidentError(f"samples hold labels of different types: {kinds}")
    positions, *columns = (torch.cat(column) for column in zip(*pieces, strict=True))
    order = positions.argsort()
    return [column[order] for column in columns]


def _attributes(dataset: Any) -> list[Tensor]:
    """Return the attributes, such as task labels, that end up in a batch."""
    columns = []
    for attribute in getattr(dataset, "_data_attributes", {}).values():
        if attribute.use_in_getitem:
            if isinstance(attribute.data, ConstantSequence):
                value = default_collate([attribute[0]])
                columns.append(value.expand(len(dataset), *value.shape[1:]))
            else:
                columns.append(default_collate(values_of(attribute)))
    return columns


def _check_outputs(groups: Sequence[Group]) -> None:
    """Try each group on one image: batches need images of one shape and type."""
    kinds = set()
    for group in groups:
        row = torch.zeros(1, dtype=torch.int64, device=group.images.device)
        try:
            x = group.batch(row, torch.zeros(1, group.draws, device=row.device))
        except (RuntimeError, TypeError, ValueError) as error:
            raise NotResidentError(f"the transforms fail: {error}") from error
        kinds.add((tuple(x.shape[1:]), x.dtype))
    if len(kinds) > 1:
        raise NotResidentError(f"samples differ in shape or type: {kinds}")
