"""Submodels that answer one after the other, in the memory of one network."""

from __future__ import annotations

from torch import nn

from avalanche_ext.models.submodel import Submodel
from avalanche_ext.models.submodels import Submodels


class OneSubmodel:
    """The submodel asked for last; the next one takes its place, and its memory.

    Args:
        submodels: All of them, as they answer.
    """

    def __init__(self, submodels: Submodels) -> None:
        self._submodels = submodels
        self._held: tuple[int, Submodel] | None = None

    def of(self, model: nn.Module, k: int) -> Submodel:
        """One of them, until another one is asked for.

        Args:
            model: The shared network, which has not changed since the last `clear`, but
                that its head may have grown.
            k: Which one, from 0.

        Returns:
            Equal to `Submodels.of`.
        """
        if self._held is None or self._held[0] != k:
            held, self._held = self._held, None  # after an error there is none
            if held is None:
                own = self._submodels.of(model, k, answering=True)
            else:
                own = held[1]
                keep = self._submodels.in_use(answering=True)[k]
                own.become(model, keep, self._submodels.classes[k])
            self._held = k, own
        return self._held[1]

    def clear(self) -> None:
        """Drop it."""
        self._held = None
