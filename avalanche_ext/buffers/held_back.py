"""Samples of an experience that are held back for validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks import CLExperience
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor

from avalanche_ext._checks import require_fraction, require_loading
from avalanche_ext.loaders import values_of
from avalanche_ext.models.cosine_classifier import classes_in


class HeldBack:
    """Validation data of each experience: a share of it, or those of a stream.

    Several plugins can share them: whoever comes first takes them out.

    Args:
        fraction: Share of each class, in [0, 1).
        stream: Experiences to take instead, one for each of training, in their order.
        generator: Of the draw; None for torch's default.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        fraction: float = 0.1,
        *,
        stream: Sequence[CLExperience] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        require_fraction(validation_fraction=fraction)
        if fraction == 1:
            raise ValueError(
                "validation_fraction is 1; wanted less, to train on the rest"
            )
        if stream is not None and not hasattr(stream, "__getitem__"):
            raise ValueError(f"valid_stream is {stream!r}; wanted a stream")
        require_loading("auto", generator)
        self.fraction = fraction
        self.stream = stream
        self.generator = generator
        # what is left to train, and what was taken out of it
        self._taken: tuple[AvalancheDataset, AvalancheDataset] | None = None

    def take(self, strategy: Any) -> AvalancheDataset:
        """Take the validation data out of those that are trained.

        Args:
            strategy: Once its data are adapted; ``adapted_dataset`` is replaced, but
                for the next calls in the same experience.

        Returns:
            The data held back; where that would be none, with a warning, all of the
            experience's, which are trained, too.

        Raises:
            ValueError: If ``adapted_dataset`` does not begin with the experience's own
                data, or the stream has no such experience or one of other classes.
        """
        if self.stream is not None:
            return self._from_stream(self.stream, strategy.experience)
        data, adapted = strategy.experience.dataset, strategy.adapted_dataset
        if self._taken is not None and self._taken[0] is adapted:
            return self._taken[1]
        n = len(data)
        found, own = (
            [int(y) for y in values_of(some.targets)] for some in (adapted, data)
        )
        if found[:n] != own:
            raise ValueError(
                "strategy.adapted_dataset does not begin with the experience's data; "
                "wanted the plugin that holds data back listed before those that change "
                "them"
            )
        stay, held = stratified_split(own, self.fraction, self.generator)
        if not len(held):
            warnings.warn(
                f"validation_fraction {self.fraction} of {n} samples are none: training "
                "data stand in for validation",
                stacklevel=2,
            )
            self._taken = adapted, data
            return data
        rest = torch.arange(n, len(adapted))  # what other plugins have appended
        strategy.adapted_dataset = adapted.subset(torch.cat([stay, rest]).tolist())
        self._taken = strategy.adapted_dataset, data.subset(held.tolist())
        return self._taken[1]

    def release(self) -> None:
        """Forget the data, at the end of an experience."""
        self._taken = None

    @staticmethod
    def _from_stream(
        stream: Sequence[CLExperience], experience: CLExperience
    ) -> AvalancheDataset:
        i = int(experience.current_experience)
        wanted = classes_in(experience)
        found = classes_in(stream[i]) if i < len(stream) else None
        if found != wanted:
            raise ValueError(
                f"valid_stream has {found} as classes of experience {i}; wanted {wanted}"
            )
        return stream[i].dataset


def stratified_split(
    targets: Sequence[int], fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw a share of the samples of each class; a class keeps at least one.

    Args:
        targets: Class ids of the samples.
        fraction: Share of each class, in [0, 1).
        generator: Of the draw; None for torch's default.

    Returns:
        Positions of those that stay, and of those drawn, both ascending.

    Example:
        >>> [part.numel() for part in stratified_split([0] * 20 + [1] * 10, 0.1)]
        [27, 3]
    """
    labels = torch.as_tensor([int(y) for y in targets])
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.unique(labels).tolist():
        own = (labels == label).nonzero().flatten()
        n = min(round(fraction * len(own)), len(own) - 1)
        drawn[own[torch.randperm(len(own), generator=generator)[:n]]] = True
    return (~drawn).nonzero().flatten(), drawn.nonzero().flatten()
