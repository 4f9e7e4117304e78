"""Avalanche's ``DER`` with a memory that may be smaller than a mini-batch.

Imports torch and Avalanche: recipes load it when a strategy is made.
"""

from __future__ import annotations

from typing import Any

from avalanche.training.supervised import DER


class SmallMemoryDER(DER):
    """``DER``, which rehearses from its memory however few images are in it.

    Avalanche's own rehearses nothing, and says nothing, while the memory holds fewer
    images than a mini-batch. Here its part of the mini-batch is then the whole memory.
    """

    def _before_training_exp(self, **kwargs: Any) -> None:
        held = len(self.storage_policy.buffer)
        # a size of 0 is none for a loader; with an empty memory none is made
        self.batch_size_mem = min(self.train_mb_size, held) or self.train_mb_size
        super()._before_training_exp(**kwargs)
