"""Replay of exemplars by plain concatenation with the new data."""

from __future__ import annotations

from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer

from avalanche_ext._checks import require_kind
from avalanche_ext.loaders import image_bytes, shuffle_uniformly


class ExemplarReplayPlugin(SupervisedPlugin):
    """Train on the new data and the exemplars together, uniformly shuffled.

    Avalanche's `ReplayPlugin` fills a fixed part of each batch from memory; here
    every sample, new or old, is seen once an epoch, as in iCaRL, LUCIR and BDR.

    Callbacks: after the data adaptation the buffer is appended to
    ``strategy.adapted_dataset``; before an experience a loader that balances task
    labels gives way to a uniform one, and what a `MnemonicsBuffer` could not keep is
    refused; after it the buffer is updated.
    Keeps between experiences: the buffer, which a checkpoint saves in its own way.

    Args:
        buffer: Any Avalanche `ExemplarsBuffer`, for instance a `HerdingBuffer`.
        memory_resident: Of the uniform loader, see
            `avalanche_ext.loaders.make_loader`.
        generator: Of the uniform loader; None for torch's default.

    Raises:
        ValueError: If ``buffer`` is no `ExemplarsBuffer`; before an experience, if a
            `MnemonicsBuffer` does not fit its data or the model.

    Example:
        >>> from avalanche_ext.buffers import HerdingBuffer
        >>> plugin = ExemplarReplayPlugin(HerdingBuffer(per_class=20))
        >>> len(plugin.buffer.buffer)
        0
    """

    def __init__(
        self,
        buffer: ExemplarsBuffer,
        *,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        require_kind(ExemplarsBuffer, buffer=buffer)
        self.buffer = buffer
        self.memory_resident = memory_resident
        self.generator = generator

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Append the exemplars to the data of the experience."""
        if len(self.buffer.buffer):
            strategy.adapted_dataset = strategy.adapted_dataset.concat(
                self.buffer.buffer.train()
            )

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse what does not fit; shuffle uniformly."""
        if rehearse := getattr(self.buffer, "rehearse", None):
            rehearse(strategy, strategy.experience.dataset)
        shuffle_uniformly(
            strategy,
            memory_resident=self.memory_resident,
            generator=self.generator,
            **kwargs,
        )

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Choose the exemplars of the experience."""
        self.buffer.post_adapt(strategy, strategy.experience)

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the raw images in the buffer.

        Returns:
            ``{"exemplars": bytes}``.
        """
        kept = self.buffer.buffer
        return {"exemplars": image_bytes(kept) if len(kept) else 0}
