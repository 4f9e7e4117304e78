"""Shares of the classes in iCaRL's memory, rounded down.

Imports torch and Avalanche: recipes load it when a strategy is made.
"""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin


class WholeShares(SupervisedPlugin):
    """Give each class as many exemplars as all can have, so that the memory is kept to.

    Avalanche's iCaRL rounds up: six classes share 200 exemplars as 34 each, 204 in all.
    ``after_training_exp`` sets the size of the memory to a multiple of the classes;
    it must stand before the plugin of ``ICaRL``, which is the last of the strategy's.

    Args:
        exemplars: Most exemplars in memory, at least one a class.
    """

    def __init__(self, exemplars: int) -> None:
        super().__init__()
        self.exemplars = exemplars

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Round the size of the memory down, before exemplars are chosen."""
        icarl = next(p for p in strategy.plugins if hasattr(p, "observed_classes"))
        n_classes = len(icarl.observed_classes)
        icarl.memory_size = self.exemplars // n_classes * n_classes
