"""Transforms of the images of a stream: random ones by name, and normalisation.

Imports torchvision: `benchmarks.streams` loads it when a stream is made.
"""

from __future__ import annotations

import re
from typing import Any

from torchvision import transforms

from benchmarks.names import UsageError, nearest
from benchmarks.streams.fields import Augmentation, StreamInfo

# Avalanche's MNIST gives tensors, all other data sets PIL images
_GIVES_TENSORS = ("SplitMNIST", "PermutedMNIST", "RotatedMNIST")
_RANDOM: dict[Augmentation, list[Any]] = {
    "none": [],
    "horizontal flip": [transforms.RandomHorizontalFlip()],
    "random 32x32 crop after padding by 4, horizontal flip": [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
    ],
    **{
        f"random resized crop to 32x32 after padding by {n}, horizontal flip": [
            transforms.Pad(n),
            transforms.RandomResizedCrop(32),
            transforms.RandomHorizontalFlip(),
        ]
        for n in (2, 4)
    },
    **{
        f"random resized crop to {size}x{size}, horizontal flip": [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
        ]
        for size in (224, 256)
    },
}


def augmentation(info: StreamInfo) -> transforms.Compose | None:
    """Random transforms of a stream's training images, which also take tensors.

    Args:
        info: The stream.

    Returns:
        The transforms; None where there are none.
    """
    steps = _RANDOM[info.augmentation]
    return transforms.Compose(steps) if steps else None


def make_transforms(
    info: StreamInfo, *, augment: bool | str, normalize: bool
) -> tuple[transforms.Compose, transforms.Compose]:
    """Make the transforms of training and of evaluation.

    Args:
        info: The stream.
        augment: Whether training images get random transforms: those of the stream, or
            the name of others.
        normalize: Whether mean and standard deviation are normalised.

    Returns:
        From an image of the data set to a tensor, both.

    Raises:
        UsageError: If there are no transforms of this name for images of this size.
    """
    end = [] if info.classic in _GIVES_TENSORS else [transforms.ToTensor()]
    if normalize:
        end.append(transforms.Normalize(info.mean, info.std))
    fit: list[Any] = []
    if info.classic == "SplitImageNet":
        size = info.image_shape[-1]
        fit = [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)]
    name = _augmentation(info, augment)
    crops = name.startswith("random resized crop") and info.classic == "SplitImageNet"
    start = _RANDOM[name] if crops else [*fit, *_RANDOM[name]]
    return transforms.Compose([*start, *end]), transforms.Compose([*fit, *end])


def _augmentation(info: StreamInfo, augment: bool | str) -> Augmentation:
    """Name of the random transforms that are asked for."""
    if isinstance(augment, bool):
        return info.augmentation if augment else "none"
    size = str(info.image_shape[-1])
    fitting = [n for n in _RANDOM if set(re.findall(r"(\d+)x", n)) <= {size}]
    for name in fitting:
        if name == augment:
            return name
    raise UsageError(
        f"{info.name}: augment is {augment!r}; {nearest(augment, fitting)}"
    )
