"""Data of the stream, referred to by experience and position instead of copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from avalanche.benchmarks import CLExperience
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.flat_data import FlatData
from avalanche.benchmarks.utils.utils import concat_datasets

from avalanche_ext.checkpoint.kinds import ATOMS, StateError

Indices = npt.NDArray[np.int64]


class StreamSamples:
    """The samples of the experiences trained so far.

    Two samples are the same if they come from the same item of the same base dataset
    through the same transforms, and have equal attributes (targets, task labels).

    Args:
        experiences: Those trained so far, in order.
    """

    def __init__(self, experiences: Sequence[CLExperience]) -> None:
        self._datasets = [experience.dataset for experience in experiences]
        self._chains: dict[Any, int] = {}
        self._known: list[tuple[Indices, Indices]] | None = None

    def refer(self, dataset: AvalancheDataset) -> dict[str, Any]:
        """Describe a dataset by where in the stream its samples are.

        Args:
            dataset: Subsets and concatenations of the experiences' data; attributes
                the stream lacks (such as stored logits) are kept by value.

        Returns:
            Plain data: the transform group, ``rows`` of (experience, position),
            shape ``(N, 2)``, and the additional attributes.

        Raises:
            StateError: If a sample is not one of the stream's.
        """
        added = self._added_attributes(dataset)
        rows = torch.tensor(self._rows(dataset, added)).reshape(-1, 2)
        group = dataset._flat_data._transform_groups.current_group
        return {"rows": rows, "group": group, "added": added}

    def take(self, reference: dict[str, Any]) -> AvalancheDataset:
        """Make the dataset of a reference again, with the same order and group."""
        source, position = reference["rows"].unbind(1)
        parts = [
            self._datasets[e]
            .with_transforms(reference["group"])
            .subset(position[source == e].tolist())
            for e in source.unique().tolist()
        ]
        if not parts:
            return concat_datasets([])
        order = source.argsort(stable=True).argsort()
        dataset = concat_datasets(parts)
        if not torch.equal(order, torch.arange(len(order))):
            dataset = dataset.subset(order.tolist())
        for name, (values, in_item) in reference["added"].items():
            attribute = DataAttribute(values, name, use_in_getitem=in_item)
            dataset = dataset.update_data_attribute(name, attribute)
        return dataset

    def _added_attributes(self, dataset: AvalancheDataset) -> dict[str, Any]:
        """Values of the attributes that the data of the stream do not have."""
        of_stream = {n for d in self._datasets for n in d._data_attributes}
        added = {}
        for name, attribute in dataset._data_attributes.items():
            if name not in of_stream and len(dataset):
                values = list(attribute)
                if not all(type(v) in (*ATOMS, torch.Tensor) for v in values):
                    raise StateError(f"its attribute {name!r} is no plain data")
                added[name] = (values, attribute.use_in_getitem)
        return added

    def _rows(self, dataset: AvalancheDataset, added: dict[str, Any]) -> list[Any]:
        """(experience, position) of each sample."""
        keys = list(zip(*self._origins(dataset), strict=True))
        places = self._places(set(keys))
        rows = []
        for i, key in enumerate(keys):
            attributes = {
                name: attribute[i]
                for name, attribute in dataset._data_attributes.items()
                if name not in added
            }
            found = (p for p in places.get(key, ()) if self._has(p, attributes))
            row = next(found, None)
            if row is None:
                raise StateError(f"its sample {i} is not in the stream")
            rows.append(row)
        return rows

    def _places(self, wanted: set[Any]) -> dict[Any, list[tuple[int, int]]]:
        """(experience, position) wherever in the stream the wanted items occur."""
        places: dict[Any, list[tuple[int, int]]] = {}
        if not wanted:
            return places
        if self._known is None:
            self._known = [self._origins(dataset) for dataset in self._datasets]
        items = np.array([item for _, item in wanted])
        for e, (chains, positions) in enumerate(self._known):
            for i in np.flatnonzero(np.isin(positions, items)).tolist():
                key = (chains[i], positions[i])
                if key in wanted:
                    places.setdefault(key, []).append((e, i))
        return places

    def _has(self, place: tuple[int, int], attributes: dict[str, Any]) -> bool:
        """Whether a sample of the stream has these attributes and no others."""
        experience, position = place
        own = self._datasets[experience]._data_attributes
        return own.keys() == attributes.keys() and all(
            _equal(own[name][position], value) for name, value in attributes.items()
        )

    def _origins(self, dataset: AvalancheDataset) -> tuple[Indices, Indices]:
        """Which base dataset and transforms, and which item, each sample is made of."""
        index = np.arange(len(dataset), dtype=np.int64)
        return self._descend(dataset._flat_data, index, ())

    def _descend(
        self, node: Any, index: Indices, chain: tuple[Any, ...]
    ) -> tuple[Indices, Indices]:
        """Follow items of a node down to the base datasets."""
        if isinstance(node, AvalancheDataset):
            node = node._flat_data
        if not isinstance(node, FlatData):
            number = self._chains.setdefault((id(node), chain), len(self._chains))
            return np.full(len(index), number, dtype=np.int64), index
        if node._indices is not None:
            entries = map(node._indices.__getitem__, index.tolist())
            index = np.fromiter(entries, np.int64, len(index))
        chain = chain + _transforms(node)
        starts = np.cumsum([0, *map(len, node._datasets)])
        which = np.searchsorted(starts, index, side="right") - 1
        chains, items = np.empty_like(index), np.empty_like(index)
        for number, child in enumerate(node._datasets):
            mine = which == number
            if mine.any():
                below = self._descend(child, index[mine] - starts[number], chain)
                chains[mine], items[mine] = below
        return chains, items


def _equal(ours: Any, wanted: Any) -> bool:
    """Whether two values of an attribute, numbers or arrays, are equal."""
    result = ours == wanted
    return bool(result.all() if hasattr(result, "all") else result)


def _transforms(node: Any) -> tuple[Any, ...]:
    """What a node does to its items, comparable by identity."""
    steps = []
    for field in ("_frozen_transform_groups", "_transform_groups"):
        groups = getattr(node, field, None)
        if groups is not None:
            by_name = groups.transform_groups
            default = getattr(by_name, "default_factory", lambda: None)()
            steps += [
                (field, name, id(transform))
                for name, transform in {"": default, **by_name}.items()
                if transform is not None and (not name or transform is not default)
            ]
    return tuple(steps)
