"""Per-image transforms as operations on a whole batch.

Each operation takes a batch of images, shape ``(B, C, H, W)``, and ``draws`` columns
of numbers uniform in ``[0, 1)``, shape ``(B, draws)``, one row an image. It may
overwrite the batch it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torchvision.transforms import functional as tvf


class BatchTransform(Protocol):
    """An operation on a batch, and how many random numbers an image costs it."""

    @property
    def draws(self) -> int:
        """Random numbers needed for each image."""

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Transform a batch, image ``b`` steered by ``uniform[b]``."""


@lru_cache(maxsize=256)
def _column(
    values: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return one value a channel, shape ``(C, 1, 1)``, kept on the device."""
    return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


@dataclass(frozen=True)
class ToFloat:
    """``ToTensor`` on pixels 0 to 255: float32 in ``[0, 1]``."""

    draws: ClassVar[int] = 0

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Divide by 255, a tensor, since CUDA multiplies by the inverse of a number."""
        x = x.to(torch.float32)
        return x.div_(_column((255.0,), x.dtype, x.device))


@dataclass(frozen=True)
class Normalize:
    """``(x - mean) / std`` for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    draws: ClassVar[int] = 0

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Subtract and divide in place, in torchvision's order."""
        mean = _column(self.mean, x.dtype, x.device)
        return x.sub_(mean).div_(_column(self.std, x.dtype, x.device))


@dataclass(frozen=True)
class RandomCrop:
    """A window at a random place of the padded image, every place equally likely."""

    size: tuple[int, int]
    padding: tuple[int, ...] = ()
    fill: float = 0
    mode: str = "constant"
    draws: ClassVar[int] = 2

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Cut each image's window.

        A window is one stretch of memory from its first to its last pixel, so that a
        single ``index_select`` copies all windows, ten times faster than indexing
        pixel by pixel.

        Raises:
            ValueError: If the padded image is smaller than the window.
        """
        if self.padding:
            x = tvf.pad(x, list(self.padding), self.fill, self.mode)
        (b, c, h, w), (rows, columns) = x.shape, self.size
        if h < rows or w < columns:
            raise ValueError(f"images of {h}x{w} are too small to crop {self.size}")
        top = (uniform[:, 0] * (h - rows + 1)).long()
        left = (uniform[:, 1] * (w - columns + 1)).long()
        length = ((c - 1) * h + rows - 1) * w + columns
        flat = x.contiguous().view(-1)
        stretches = flat.as_strided((flat.numel() - length + 1, length), (1, 1))
        first = torch.arange(b, device=x.device) * (c * h * w) + top * w + left
        cut = stretches.index_select(0, first)
        return cut.as_strided((b, c, rows, columns), (length, h * w, w, 1))


@dataclass(frozen=True)
class RandomFlip:
    """Each image is mirrored along ``dim`` with probability ``p``."""

    p: float
    dim: int
    draws: ClassVar[int] = 1

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Choose between each image and its mirror image by copying rows."""
        both = torch.stack((x, x.flip(self.dim))).flatten(0, 1)
        mirrored = uniform[:, 0] < self.p
        rows = torch.arange(len(x), device=x.device) + mirrored * len(x)
        return both.index_select(0, rows)


@dataclass(frozen=True)
class Apply:
    """A deterministic transform that treats the images of a batch independently."""

    transform: Any
    draws: ClassVar[int] = 0

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Call the transform on the batch."""
        result: Tensor = self.transform(x)
        return result


@dataclass(frozen=True)
class Rotate:
    """``RandomRotation`` of one possible angle, as in Avalanche's RotatedMNIST."""

    transform: Any
    draws: ClassVar[int] = 0

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Rotate all images; the angle is rounded to float32, as torchvision does."""
        t = self.transform
        angle = float(torch.tensor(float(t.degrees[0])))
        fill = t.fill if isinstance(t.fill, (list, tuple)) else [t.fill] * x.shape[1]
        fill = [float(value) for value in fill]
        result: Tensor = tvf.rotate(x, angle, t.interpolation, t.expand, t.center, fill)
        return result


@lru_cache(maxsize=64)
def _permutation(transform: Any, device: torch.device) -> Tensor:
    result: Tensor = transform.permutation.to(device)
    return result


@dataclass(frozen=True)
class PermutePixels:
    """Avalanche's ``PixelsPermutation``, one permutation for all images."""

    transform: Any
    draws: ClassVar[int] = 0

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Reorder the values of every image."""
        order = _permutation(self.transform, x.device)
        return x.flatten(1).index_select(1, order).view_as(x)


def flatten(transforms: Any) -> Iterator[Any]:
    """Yield single transforms, in order, out of nested ``Compose``s and ``None``s.

    Args:
        transforms: A transform, ``None``, or a list or tuple of those.

    Yields:
        Transforms that are not containers, v1 and v2 of torchvision alike.
    """
    if isinstance(transforms, (list, tuple)):
        for transform in transforms:
            yield from flatten(transform)
    elif torchvision_name(transforms) == "Compose":
        yield from flatten(transforms.transforms)
    elif transforms is not None:
        yield transforms


def torchvision_name(transform: Any) -> str:
    """Return the class name of torchvision's transforms, "" for all other objects.

    By name, since importing the v2 transforms takes long; exact classes only, since a
    subclass may do anything.
    """
    kind = type(transform)
    known = kind.__module__.startswith("torchvision.transforms.")
    return kind.__name__ if known else ""
