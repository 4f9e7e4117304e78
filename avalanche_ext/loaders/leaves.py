"""What is known of the datasets at the leaves: where their pixels and labels lie."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.benchmarks.datasets import CORe50Dataset, TinyImagenet
from avalanche.benchmarks.datasets.external_datasets.mnist import TensorMNIST
from avalanche.benchmarks.utils import PathsDataset
from avalanche.benchmarks.utils.classification_dataset import (
    _TensorClassificationDataset,
)
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate
from torchvision.datasets import CIFAR10, MNIST, DatasetFolder, Omniglot
from torchvision.transforms import ToTensor

from avalanche_ext.loaders.errors import NotResidentError


@dataclass(frozen=True)
class Stored:
    """A leaf whose raw images lie in memory as one array."""

    images: Callable[[Any], Tensor]
    """From the leaf to its images, shape ``(N, C, H, W)``, without a copy."""
    fields: Callable[[Any, list[int]], list[Tensor]]
    """From the leaf and some indices to what an item holds after its image."""
    pil: bool = True
    """Its items are PIL images; otherwise tensors."""
    own_transforms: Callable[[Any], Sequence[Any]] = lambda leaf: (leaf.transform,)
    """What the leaf itself does to an image."""
    put_back: Callable[[Any, Tensor], None] | None = None
    """Lets the leaf look at a contiguous copy of its images, so that they are in memory
    once; for those whose own array has another order."""


def _cifar_images(leaf: Any) -> Tensor:
    data = leaf.data if leaf.data.flags.writeable else leaf.data.copy()
    return torch.from_numpy(data).permute(0, 3, 1, 2)


def _put_cifar_images(leaf: Any, images: Tensor) -> None:
    leaf.data = images.permute(0, 2, 3, 1).numpy()


def _labels(leaf: Any, indices: list[int]) -> list[Tensor]:
    return [default_collate([int(leaf.targets[i]) for i in indices])]


def _tensor_fields(leaf: Any, indices: list[int]) -> list[Tensor]:
    return [tensor[indices] for tensor in leaf.tensors[1:]]


def _number_fields(leaf: Any, indices: list[int]) -> list[Tensor]:
    labels, *others = _tensor_fields(leaf, indices)
    return [default_collate(labels.tolist()), *others]


# By the function that makes the items, which subclasses share unless they override it.
_STORED: dict[Any, Stored] = {
    CIFAR10.__getitem__: Stored(_cifar_images, _labels, put_back=_put_cifar_images),
    MNIST.__getitem__: Stored(lambda leaf: leaf.data.unsqueeze(1), _labels),
    # Avalanche's MNIST does by itself what ToTensor does to a PIL image
    TensorMNIST.__getitem__: Stored(
        lambda leaf: leaf.data.unsqueeze(1),
        _labels,
        own_transforms=lambda leaf: (ToTensor(), leaf.transform),
    ),
    TensorDataset.__getitem__: Stored(
        lambda leaf: leaf.tensors[0], _tensor_fields, False, lambda leaf: ()
    ),
    _TensorClassificationDataset.__getitem__: Stored(
        lambda leaf: leaf.tensors[0], _number_fields, False, lambda leaf: ()
    ),
}
# Files on disk, decoded, then `transform` and `target_transform`.
_FILES = tuple(
    kind.__getitem__
    for kind in (DatasetFolder, Omniglot, TinyImagenet, CORe50Dataset, PathsDataset)
)


def stored(leaf: Any) -> Stored | None:
    """Return how to reach the images of a leaf that keeps them all in memory."""
    return _STORED.get(getattr(type(leaf), "__getitem__", None))


def own_transforms(leaf: Any) -> tuple[list[Any], list[Any]]:
    """Return what a leaf does to its images and to its labels by itself.

    Args:
        leaf: A dataset.

    Returns:
        Transforms of the image and of the label. Empty for a leaf of an unknown
        class: what it does is part of its raw items.
    """
    known = stored(leaf)
    if known is None and not _reads_files(leaf):
        return [], []
    images = known.own_transforms(leaf) if known else (leaf.transform,)
    return list(images), [getattr(leaf, "target_transform", None)]


def raw_items(leaf: Any) -> Any:
    """Return a leaf of a known class without its own transforms, others as they are."""
    if stored(leaf) is None and not _reads_files(leaf):
        return leaf
    raw = copy.copy(leaf)
    raw.transform = raw.target_transform = None
    return raw


def readable(leaf: Any, *, trusted: bool) -> Any:
    """Return a dataset whose items are the raw items of a leaf, the same each time.

    Args:
        leaf: A dataset.
        trusted: The user vouches for leaves of unknown classes.

    Returns:
        The leaf, or a copy of it without its own transforms.

    Raises:
        NotResidentError: If the items might differ from one time to the next.
    """
    if (raw := raw_items(leaf)) is not leaf:
        return raw
    name = type(leaf).__name__
    if getattr(leaf, "deterministic_items", False):
        return leaf
    if not trusted:
        raise NotResidentError(
            f"{name} is not known to give the same items each time; set its class "
            "attribute deterministic_items = True, or pass memory_resident=True"
        )
    if getattr(leaf, "transform", None) is not None:
        raise NotResidentError(
            f"{name} has a transform of its own, {leaf.transform!r}, which may be "
            "random; give it to the benchmark as train_transform instead"
        )
    return leaf


def _reads_files(leaf: Any) -> bool:
    return getattr(type(leaf), "__getitem__", None) in _FILES
