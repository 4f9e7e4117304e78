"""Validation images that the stream of a run holds back.

Imports torch and Avalanche: recipes load it when a strategy is made.
"""

from __future__ import annotations

from typing import Any

from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.utils import concat_datasets

from avalanche_ext.buffers.held_back import HeldBack
from benchmarks.names import UsageError


class ValidationStream(HeldBack):
    """Those of the experience under way, which nothing ever trains on.

    They are no part of the experience's data: no memory chooses from them.

    Args:
        past: Whether those of earlier experiences are given, too.
    """

    def __init__(self, *, past: bool = False) -> None:
        super().__init__()
        self.past = past

    def take(self, strategy: Any) -> AvalancheDataset:
        """Look the images up; the data that are trained stay as they are.

        Args:
            strategy: In an experience of training.

        Returns:
            The images.

        Raises:
            UsageError: If the stream holds none back.
        """
        experience = strategy.experience
        streams = experience.benchmark.streams
        if "valid" not in streams:
            raise UsageError(
                "the stream holds no images back; wanted one that does, such as "
                "split_tiny_imagenet_validated, or --early_stopping false"
            )
        last = int(experience.current_experience)
        parts = list(streams["valid"])[0 if self.past else last : last + 1]
        return concat_datasets([part.dataset for part in parts])
