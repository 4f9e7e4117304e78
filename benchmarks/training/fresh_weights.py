"""Train each experience from the weights the run began with.

Imports torch and Avalanche: recipes load it when a strategy is made.
"""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn


class FreshWeightsPlugin(SupervisedPlugin):
    """Put a network back to its start before each experience, and draw its head anew.

    Avalanche's ``FromScratchTrainingPlugin`` leaves running statistics and the weights
    of a head that has just grown as they are, so what was learned stays.

    ``before_training_exp`` acts, after the head has grown; it clears the state of the
    optimizer, too. Between experiences the first weights of the extractor are kept.

    Args:
        extractor: Part of the strategy's model with ``feature_size``; all parameters
            of the model outside it are those of linear layers over its features.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self.initial: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Restore the extractor, draw the head, forget momentum."""
        if not self.initial:
            state = self.extractor.state_dict()
            self.initial = {name: value.clone() for name, value in state.items()}
        self.extractor.load_state_dict(self.initial)
        own = {id(parameter) for parameter in self.extractor.parameters()}
        bound = self.extractor.feature_size**-0.5  # as torch's Linear draws
        for parameter in strategy.model.parameters():
            if id(parameter) not in own:
                parameter.uniform_(-bound, bound)
        strategy.optimizer.state.clear()
