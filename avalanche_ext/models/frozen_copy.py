"""A copy of a model that answers as the model did, whatever the model learns."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ext.functional.undisturbed import own
from avalanche_ext.models.compiled_parts import CompiledParts


class FrozenCopy:
    """A copy in evaluation mode; nothing in it is trained.

    Args:
        model: What is copied. Outputs that it keeps of its last batch are not.
        inference_mode: Run it under `torch.inference_mode` instead of
            `torch.no_grad`: same numbers, a little less work.
        compile: Run its parts compiled, see `CompiledParts`.
        like: An earlier copy, whose compiled parts serve this one.

    Attributes:
        model: The copy.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> frozen = FrozenCopy(model)
        >>> nn.init.zeros_(model.weight).sum() == frozen.model.weight.sum()
        tensor(False)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        inference_mode: bool = False,
        compile: bool = False,
        like: FrozenCopy | None = None,
    ) -> None:
        self.model: Any = copy.deepcopy(model).eval().requires_grad_(False)
        self.inference_mode = inference_mode
        self._compiled: CompiledParts | None = None
        if compile:
            before = like._compiled if like is not None else None
            self._compiled = CompiledParts(self.model, before)

    @classmethod
    def of(cls, strategy: Any, like: FrozenCopy | None = None) -> FrozenCopy:
        """A copy of a strategy's model, run as the strategy's switches say.

        Args:
            strategy: Any of Avalanche's; one without switches has them off.
            like: As in the constructor.
        """
        return cls(
            strategy.model,
            inference_mode=getattr(strategy, "inference_mode", False),
            compile=getattr(strategy, "compile", False),
            like=like,
        )

    def __call__(self, x: Tensor) -> Any:
        """Its output, without a graph, which may take part in one.

        Args:
            x: Inputs, first axis B.
        """
        without = torch.inference_mode if self.inference_mode else torch.no_grad
        with without(), self._compiled or nullcontext():
            output = self.model(x)
        return own(output)

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of the copy.

        Returns:
            ``{"frozen_copies": bytes}``.
        """
        return {
            "frozen_copies": sum(t.nbytes for t in self.model.state_dict().values())
        }
