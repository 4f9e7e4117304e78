"""Where each sample of an Avalanche dataset comes from, and what is done to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.flat_data import FlatData
from torch.utils.data import ConcatDataset, Subset

from avalanche_ext.loaders.batch_transforms import flatten
from avalanche_ext.loaders.errors import NotResidentError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Samples of one dataset that share their leaf dataset and their transforms."""

    leaf: Any
    """The dataset that makes the raw items."""
    indices: Indices
    """Which items of the leaf, shape ``(n,)``."""
    positions: Indices
    """Their places in the whole dataset, shape ``(n,)``."""
    transforms: tuple[Any, ...] = ()
    """Transforms of the image, in the order of application."""
    target_transforms: tuple[Any, ...] = ()
    """Transforms of the label, in the order of application."""


def parts(dataset: Any) -> Iterator[Part]:
    """Split a dataset into parts that come from one leaf through one chain.

    Args:
        dataset: An Avalanche dataset or any other indexable one.

    Yields:
        The parts; their ``positions`` together are ``0 .. len(dataset) - 1``.

    Raises:
        NotResidentError: If the structure of the dataset is not understood.
    """
    positions = np.arange(len(dataset), dtype=np.int64)
    node = dataset._flat_data if isinstance(dataset, AvalancheDataset) else dataset
    yield from _walk(Part(node, positions, positions), None)


def values_of(values: Any) -> list[Any]:
    """All values of an attribute, such as the class ids of a dataset.

    As ``list(values)``, without the search for its leaf that Avalanche makes for each
    value.

    Args:
        values: An attribute of an Avalanche dataset, or any sequence.

    Returns:
        The values, one for each sample.
    """
    if isinstance(values, DataAttribute):
        values = values.data
    found: list[Any] = [None] * len(values)
    positions = np.arange(len(values), dtype=np.int64)
    for part in _walk(Part(values, positions, positions), None):
        own = map(part.leaf.__getitem__, part.indices.tolist())
        for position, value in zip(part.positions.tolist(), own, strict=True):
            found[position] = value
    return found


def _walk(part: Part, group: str | None) -> Iterator[Part]:
    """Yield the parts below ``part.leaf``.

    Args:
        part: A node of the tree in the place of the leaf.
        group: The transform group asked for by the node above; Avalanche hands the
            top's group down, whatever the nodes below say.
    """
    node: Any = part.leaf
    if type(node) is Subset or isinstance(node, FlatData):
        groups = getattr(node, "_transform_groups", None)
        group = None if groups is None else group or groups.current_group
        if group is not None:
            part = _with_group_transforms(part, group)
        for child in _children(part):
            yield from _walk(child, group)
    elif type(node) is ConcatDataset:
        for child in _concatenated(part, node.datasets, part.indices):
            yield from _walk(child, None)
    elif isinstance(node, AvalancheDataset):
        raise NotResidentError("an AvalancheDataset lies inside a dataset of torch's")
    else:
        yield part


def _children(part: Part) -> Iterator[Part]:
    """Go from a concatenation of subsets to what it is made of."""
    node = part.leaf
    if isinstance(node, Subset):
        datasets, order = [node.dataset], node.indices
    else:
        datasets, order = node._datasets, node._indices
    indices = part.indices
    if order is not None:  # only the entries needed: the list can be far longer
        entries = map(order.__getitem__, indices.tolist())
        indices = np.fromiter(entries, np.int64, len(indices))
    yield from _concatenated(part, datasets, indices)


def _concatenated(part: Part, datasets: list[Any], indices: Indices) -> Iterator[Part]:
    """Tell which of the concatenated datasets each index falls into."""
    ends = np.cumsum([len(dataset) for dataset in datasets])
    which = np.searchsorted(ends, indices, side="right")
    for number in np.unique(which).tolist():  # of hundreds, often one
        mine, dataset = which == number, datasets[number]
        yield Part(
            dataset,
            indices[mine] - (ends[number] - len(dataset)),
            part.positions[mine],
            part.transforms,
            part.target_transforms,
        )


def _with_group_transforms(part: Part, group: str) -> Part:
    """Put the transforms of a node, frozen ones first, before those of the nodes above.

    Raises:
        NotResidentError: If a transform changes more than image and label.
    """
    images: list[Any] = []
    targets: list[Any] = []
    for groups in (part.leaf._frozen_transform_groups, part.leaf._transform_groups):
        transform = groups[group]
        if transform is not None:
            images += flatten(transform.flat_transforms(0))
            targets += flatten(transform.flat_transforms(1))
            if transform.flat_transforms(2):
                raise NotResidentError(f"{transform!r} changes more than two values")
    return Part(
        part.leaf,
        part.indices,
        part.positions,
        (*images, *part.transforms),
        (*targets, *part.target_transforms),
    )
