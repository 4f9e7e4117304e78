"""A learning rate that rises to a peak and falls to zero, step by step.

Imports torch and Avalanche: recipes load it when a strategy is made.
"""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from torch.optim.lr_scheduler import LambdaLR

START = 1e-4
"""Share of the peak with which an experience begins."""


def peak_share(epoch: float, peak_epoch: float, n_epochs: float) -> float:
    """Learning rate at a time, as a share of its peak.

    Args:
        epoch: Epochs gone, with fractions, >= 0.
        peak_epoch: Epoch of the peak, above 0 and below ``n_epochs``.
        n_epochs: Epochs in all.

    Returns:
        `START` at 0, 1 at the peak, 0 at the end and after it; linear in between.

    Example:
        >>> [round(peak_share(epoch, 2, 10), 4) for epoch in (0, 1, 2, 6, 10)]
        [0.0001, 0.5, 1.0, 0.5, 0.0]
    """
    if epoch < peak_epoch:
        return START + (1 - START) * epoch / peak_epoch
    return max(0.0, (n_epochs - epoch) / (n_epochs - peak_epoch))


class PeakLRPlugin(SupervisedPlugin):
    """Set the learning rate before each step, anew in each experience.

    The optimizer's learning rate is the peak. Avalanche's ``LRSchedulerPlugin`` begins
    all experiences but the first with the full learning rate, whatever the schedule
    begins with, and does not know the number of steps, which grows with the memory.

    ``before_training_exp`` makes the schedule, which must come after whatever changes
    the loader; each iteration moves it; ``after_training_exp`` puts the peak back.
    Keeps nothing between experiences.

    Args:
        peak_epoch: Epochs to the peak, above 0.
    """

    def __init__(self, peak_epoch: int) -> None:
        super().__init__()
        self.peak_epoch = peak_epoch
        self._schedule: LambdaLR | None = None
        self._peaks: list[float] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Make the schedule; the number of steps is that of the loader."""
        n_steps, n_epochs = len(strategy.dataloader), strategy.train_epochs
        optimizer = strategy.optimizer
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._schedule = LambdaLR(
            optimizer,
            lambda step: peak_share(step / n_steps, self.peak_epoch, n_epochs),
        )

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Move on by a step."""
        assert self._schedule is not None
        self._schedule.step()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Put the peak back."""
        for group, peak in zip(
            strategy.optimizer.param_groups, self._peaks, strict=True
        ):
            group["lr"] = peak
            group.pop("initial_lr", None)  # or the next schedule would begin with it
        self._schedule = None
