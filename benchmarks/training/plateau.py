"""The learning rate falls, and training ends, by the loss on held-back data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks import CLExperience
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from avalanche_ext._checks import (
    generator_state,
    require_kind,
    require_positive,
    require_whole,
    restore_generator,
)
from avalanche_ext.buffers.held_back import HeldBack
from avalanche_ext.loaders import make_loader
from avalanche_ext.models.feature_classifier import evaluating


class PlateauPlugin(SupervisedPlugin):
    """Steer each experience by the loss on data that are held back from it.

    After each epoch the strategy's criterion is averaged over these data, in evaluation
    mode; no random number is drawn. torch's `ReduceLROnPlateau` decides on the rate.
    Each experience starts with the first rate and ends with the weights of its lowest
    loss.

    Callbacks: ``after_train_dataset_adaptation`` holds data back, unless another plugin
    with the same `HeldBack` did; ``before_training_exp`` starts anew;
    ``after_training_epoch`` measures; ``after_training_exp`` puts the best weights and
    the first rate back: list it before plugins that look at the trained model, with
    ``strategy.plugins.insert(0, plugin)``. Keeps nothing between experiences.

    Args:
        held_back: Where the data come from.
        factor: By which the rate is multiplied, in (0, 1).
        patience: Epochs without a lower loss after which it is, >= 1.
        min_lr: An experience ends instead of going on with a rate below; None: it goes
            on.
        stop_patience: Epochs without a lower loss after which an experience ends, >= 1;
            None: it does not.
        start_epoch: The first epochs that are not looked at, >= 0.
        back_to_best: Go on from the weights of the lowest loss when the rate falls;
            the state of the optimizer stays.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        held_back: HeldBack,
        *,
        factor: float,
        patience: int,
        min_lr: float | None = None,
        stop_patience: int | None = None,
        start_epoch: int = 0,
        back_to_best: bool = False,
    ) -> None:
        super().__init__()
        require_kind(HeldBack, held_back=held_back)
        require_positive(factor=factor)
        if factor >= 1:
            raise ValueError(f"factor is {factor}; wanted less than 1")
        require_whole(1, patience=patience)
        require_whole(0, start_epoch=start_epoch)
        if min_lr is not None:
            require_positive(min_lr=min_lr)
        if stop_patience is not None:
            require_whole(1, stop_patience=stop_patience)
        self.held_back = held_back
        self.factor, self.patience = factor, patience
        self.min_lr, self.stop_patience = min_lr, stop_patience
        self.start_epoch, self.back_to_best = start_epoch, back_to_best
        #: Of the last experience: loss on the held-back data after each epoch.
        self.losses: list[float] = []
        self._data: Any = None
        self._experience: _Experience | None = None

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Hold data back."""
        self._data = self.held_back.take(strategy)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start anew."""
        self.losses = []
        self._experience = _Experience(strategy, self, self._data)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the loss, then at the rate."""
        if strategy.clock.train_exp_epochs >= self.start_epoch and self._experience:
            loss = validation_loss(strategy, self._experience.loader)
            self.losses.append(loss)
            if self._experience.is_over_after(loss):
                strategy.stop_training()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Put the best weights and the first rate back."""
        if self._experience is not None:
            self._experience.finish()
        self._experience = self._data = None
        self.held_back.release()

    def memory_bytes(self) -> dict[str, int]:
        """Nothing: the data go with their experience."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Losses of the last experience, and the state of the generator."""
        return {"losses": self.losses} | generator_state(self.held_back.generator)

    def load_state_dict(
        self, state: dict[str, Any], experiences: Sequence[CLExperience]
    ) -> None:
        """Put them back.

        Args:
            state: As returned by `state_dict`.
            experiences: Those trained so far; not needed here.
        """
        self.losses = list(state["losses"])
        restore_generator(self.held_back.generator, state)


class _Experience:
    """Rate and weights of the experience under way."""

    def __init__(self, strategy: Any, plugin: PlateauPlugin, data: Any) -> None:
        self.loader = make_loader(
            data.eval(),
            batch_size=strategy.eval_mb_size,
            shuffle=False,
            device=strategy.device,
        )
        self._plugin = plugin
        self._model: nn.Module = strategy.model
        self._groups = strategy.optimizer.param_groups
        self._rates = [group["lr"] for group in self._groups]
        self._schedule = ReduceLROnPlateau(
            strategy.optimizer,
            factor=plugin.factor,
            patience=plugin.patience - 1,  # torch counts those before the last
            threshold=0,
        )
        self._best: list[Tensor] = []
        self._worse = 0  # epochs since the best

    def is_over_after(self, loss: float) -> bool:
        """Note a loss, change the rate, and say whether it is enough."""
        if loss < self._schedule.best:
            self._best = [t.detach().clone() for t in self._tensors()]
            self._worse = 0
        else:
            self._worse += 1
        before = [group["lr"] for group in self._groups]
        self._schedule.step(loss)
        now = [group["lr"] for group in self._groups]
        if now != before and self._plugin.back_to_best:
            self._restore_best()
        too_low = self._plugin.min_lr is not None and max(now) < self._plugin.min_lr
        return too_low or self._worse == self._plugin.stop_patience

    def finish(self) -> None:
        """Put the best weights and the first rate back."""
        self._restore_best()
        for group, rate in zip(self._groups, self._rates, strict=True):
            group["lr"] = rate

    def _restore_best(self) -> None:
        """Without a best (no epoch, no finite loss) the weights stay."""
        with torch.no_grad():
            for tensor, best in zip(self._tensors(), self._best, strict=False):
                tensor.copy_(best)

    def _tensors(self) -> list[Tensor]:
        return [*self._model.parameters(), *self._model.buffers()]


def validation_loss(strategy: Any, loader: Any) -> float:
    """Mean of the criterion over data, with the model in evaluation mode.

    Model modes and the batch of the strategy are left as found; the strategy still
    counts as training, so that its outputs and its criterion are those of training.

    Args:
        strategy: In the middle of an experience.
        loader: Batches ``[x, y, ..., task labels]``, in a fixed order.

    Returns:
        The mean over all samples.
    """
    found = strategy.mbatch, strategy.mb_output
    total, n = torch.zeros((), device=strategy.device), 0
    try:
        with evaluating(strategy.model):
            for strategy.mbatch in loader:
                strategy._unpack_minibatch()
                strategy.mb_output = strategy.forward()
                total += strategy.criterion() * len(strategy.mb_y)
                n += len(strategy.mb_y)
    finally:
        strategy.mbatch, strategy.mb_output = found
    return float(total / n)
