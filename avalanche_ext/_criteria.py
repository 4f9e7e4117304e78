"""Which loss functions are a softmax cross-entropy."""

from __future__ import annotations

from typing import Any

from avalanche.training.losses import MaskedCrossEntropy
from torch import nn
from torch.nn.functional import cross_entropy


def require_softmax_cross_entropy(criterion: Any) -> None:
    """Refuse a criterion to which a class prior does not belong.

    Args:
        criterion: The loss function of a strategy.

    Raises:
        ValueError: If it is no mean softmax cross-entropy.
    """
    known = isinstance(criterion, (nn.CrossEntropyLoss, MaskedCrossEntropy))
    if criterion is cross_entropy or (known and criterion.reduction == "mean"):
        return
    name = getattr(criterion, "__name__", type(criterion).__name__)
    if known:
        name = f"{name} with reduction={criterion.reduction!r}"
    raise ValueError(
        f"the criterion is {name}; wanted a torch.nn.CrossEntropyLoss of all classes "
        "with reduction='mean': a prior shifts classes against each other in a softmax; "
        "in a sigmoid (BCE) each class stands alone, and it would only bias them"
    )
