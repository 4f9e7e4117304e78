"""Generated images in the place of a data set's: how a folder of them is known.

Such images have the number, the size and the file format of the real ones, so that runs
take as long; their accuracies say nothing about the real ones. Imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.names import UsageError

MARK = "STAND_IN.txt"
"""A file of this name says that the images in its folder are generated."""

_GRID = 4  # cells of a pattern, in height and width
_CLASS, _IMAGE, _PIXEL = 16.0, 40.0, 8  # levels by which classes, images, pixels differ


def is_stand_in(root: Path) -> bool:
    """Whether the images of a folder are generated ones.

    Args:
        root: The folder.

    Returns:
        Whether it says so.
    """
    return (root / MARK).is_file()


def require_note(root: Path, note: str) -> None:
    """Refuse a run on generated images that does not say what they are.

    Args:
        root: Folder of the data.
        note: The remark that goes with the run, and keeps it from being compared.

    Raises:
        UsageError: If the images are generated and there is no remark.
    """
    if is_stand_in(root) and not note:
        raise UsageError(
            f"note is empty; wanted one, such as --note 'stand-in images', since {root} "
            "holds generated images"
        )


def class_images(
    labels: Sequence[int], size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw images that are blurred patterns of colours, those of a class alike.

    The pattern of a class is always the same. Images of a class differ more from each
    other than classes do, as those of photographs.

    Args:
        labels: Label of each of N images, >= 0.
        size: Height and width; a multiple of 4.
        rng: Source of what tells images of a class apart.

    Returns:
        Shape ``(N, size, size, 3)``, uint8.

    Example:
        >>> class_images([0, 7], 32, np.random.default_rng(0)).shape
        (2, 32, 32, 3)
    """
    shape = (_GRID, _GRID, 3)
    known = {c: np.random.default_rng(c).normal(0, _CLASS, shape) for c in set(labels)}
    cells = np.stack([known[c] for c in labels])
    cells += rng.normal(128, _IMAGE, cells.shape)
    # uint8 from here on: 60,000 images take no more than they must
    blocks = np.clip(cells, 0, 255 - _PIXEL).astype(np.uint8)
    images = blocks.repeat(size // _GRID, axis=1).repeat(size // _GRID, axis=2)
    images += rng.integers(0, _PIXEL, images.shape, dtype=np.uint8)
    return images
