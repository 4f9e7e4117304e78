"""Train on small images first: the batch is resized, by an epoch's resolution.

Imports torch and Avalanche: recipes load it when a strategy is made.
"""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from torch.nn.functional import interpolate

STEP = 32
"""Resolutions are multiples of it, but for the first and the last."""


def resolution_at(epoch: int, sizes: tuple[int, int], ramp: tuple[int, int]) -> int:
    """Height and width of images in an epoch.

    Args:
        epoch: Number of the epoch, from 0.
        sizes: Up to the begin of the ramp, and from its end on.
        ramp: Epochs between which it grows.

    Returns:
        Pixels; within the ramp the multiple of `STEP` nearest to the straight line, in
        the middle between two the even one.

    Example:
        >>> [resolution_at(epoch, (160, 192), (29, 34)) for epoch in (0, 31, 32, 39)]
        [160, 160, 192, 192]
    """
    (low, high), (start, end) = sizes, ramp
    if epoch <= start:
        return low
    if epoch >= end:
        return high
    line = low + (high - low) * (epoch - start) / (end - start)
    return round(line / STEP) * STEP


class ResolutionPlugin(SupervisedPlugin):
    """Resize the images of each mini-batch of training; evaluation sees them whole.

    ``before_forward`` replaces ``strategy.mb_x``. Nothing is kept between experiences.

    Args:
        sizes: See `resolution_at`.
        ramp: See `resolution_at`.
    """

    def __init__(self, sizes: tuple[int, int], ramp: tuple[int, int]) -> None:
        super().__init__()
        self.sizes = sizes
        self.ramp = ramp

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Resize."""
        size = resolution_at(strategy.clock.train_exp_epochs, self.sizes, self.ramp)
        strategy.mbatch[0] = interpolate(
            strategy.mbatch[0], size=(size, size), mode="bilinear", antialias=True
        )
