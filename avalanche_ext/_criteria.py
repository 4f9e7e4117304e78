"""Which loss functions are a softmax cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avalanche.training.losses import MaskedCrossEntropy
from torch import Tensor, nn
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
    if isinstance(criterion, type):
        name = f"the class {name}, not an object of it"
    if known:
        name = f"{name} with reduction={criterion.reduction!r}"
    raise ValueError(
        f"the criterion is {name}; wanted a torch.nn.CrossEntropyLoss of all classes "
        "with reduction='mean': a prior shifts classes against each other in a softmax; "
        "in a sigmoid (BCE) each class stands alone, and it would only bias them"
    )


def require_plain_cross_entropy(criterion: Any, who: str) -> None:
    """Refuse a criterion whose losses of single samples are not plain.

    Args:
        criterion: The loss function of a strategy.
        who: What computes them in its place, for messages.

    Raises:
        ValueError: If it is no mean softmax cross-entropy, weighs classes or smooths
            labels.
    """
    require_softmax_cross_entropy(criterion)
    if getattr(criterion, "weight", None) is not None:
        raise ValueError("the criterion weighs classes; wanted one that does not")
    if smoothing := getattr(criterion, "label_smoothing", 0.0):
        raise ValueError(
            f"the criterion has label_smoothing={smoothing}; wanted 0 there, and "
            f"label_smoothing of {who}: it knows each sample's head"
        )


def refuse_beside(plugin: Any, strategy: Any, *kinds: type) -> None:
    """Refuse plugins that would act on the same memory or loss as another.

    Args:
        plugin: The one that asks.
        strategy: Its strategy.
        *kinds: What may not be beside it.

    Raises:
        ValueError: If there is another plugin of these classes.
    """
    for other in strategy.plugins:
        if other is not plugin and isinstance(other, kinds):
            own = type(plugin).__name__
            raise ValueError(
                f"plugins hold a {type(other).__name__} beside {own}; wanted one "
                f"{own}, and ExemplarReplayPlugin, which appends to the data of the "
                "experience, for another memory"
            )


class CriterionOfBatch:
    """Another loss in place of a strategy's criterion, while one batch's is computed.

    It is put in place after the forward pass and taken out before the backward pass, so
    that nothing else (evaluation, fine-tuning, a checkpoint) meets it. If an error
    came between, `take_out` at the next start puts the criterion back.

    Args:
        who: What acts on the loss, for messages.
        loss: From the criterion, logits and targets to the loss.
    """

    def __init__(self, who: str, loss: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        self.who, self.loss = who, loss
        self.n_calls = 0

    def put_in(self, strategy: Any) -> None:
        """Let the strategy's criterion be another one for now.

        Args:
            strategy: The strategy, after its forward pass.
        """
        self.take_out(strategy)
        self.n_calls = 0
        strategy._criterion = _Standin(strategy._criterion, self)

    def take_out(self, strategy: Any) -> None:
        """Put the criterion back, wherever it stands among other stand-ins.

        Args:
            strategy: The strategy.
        """
        found = strategy._criterion
        if isinstance(found, _Standin):
            if found.owner is self:
                strategy._criterion = found.criterion
            elif isinstance(found.criterion, _Standin):
                strategy._criterion, inner = found.criterion, found
                self.take_out(strategy)
                inner.criterion = strategy._criterion
                strategy._criterion = inner

    def require_called(self, strategy: Any) -> None:
        """Refuse a strategy whose loss does not come from its criterion.

        Args:
            strategy: The strategy, after it has computed a loss.

        Raises:
            ValueError: If the criterion was not called since it was put in.
        """
        if self.n_calls == 0:
            raise ValueError(
                f"{type(strategy).__name__} computed its loss without calling its "
                f"criterion between the callbacks after_forward and before_backward; "
                f"wanted a strategy that does, for {self.who} to act on"
            )


class _Standin:
    """Calls the loss; is the criterion in everything else."""

    def __init__(self, criterion: Any, owner: CriterionOfBatch) -> None:
        self.criterion, self.owner = criterion, owner

    def __call__(self, input: Tensor, target: Tensor) -> Tensor:
        self.owner.n_calls += 1
        return self.owner.loss(self.criterion, input, target)

    def __getattr__(self, name: str) -> Any:
        if name in ("criterion", "owner"):  # not there yet while one is unpickled
            raise AttributeError(name)
        return getattr(self.criterion, name)
