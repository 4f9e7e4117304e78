"""The gradient of a strategy's whole epoch at fixed weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins.clock import Clock
from torch import Tensor, nn

from avalanche_ext.checkpoint.rng import generators_of, random_state_kept
from avalanche_ext.models.past_data import parameters_by_name

_CALLBACKS = (
    "before_training_iteration",
    "before_forward",
    "after_forward",
    "before_backward",
)
_OF_BATCH = ("mbatch", "mb_output", "loss", "_criterion")


class EpochGradient(NamedTuple):
    """What an epoch would pull at the weights."""

    gradients: dict[str, Tensor]
    """By name of each trained parameter, float64: sum over the samples delivered."""
    n_samples: int
    """Samples delivered, each as often as it was."""


def epoch_gradient(strategy: Any) -> EpochGradient:
    r"""Sum of the gradients of a strategy's batches, without a step.

    .. math:: \sum_B |B| \, \nabla L_B(w)

    with :math:`L_B` whatever the strategy would descend: its criterion, and what
    plugins add before the backward pass. In evaluation mode. Model, plugins, loader
    and random generators are left as found; what a plugin changes *inside* an object
    it holds is not seen.

    Args:
        strategy: In an experience, its loader made.

    Returns:
        The sum, and over how many samples.
    """
    named = parameters_by_name(strategy.model)
    total = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in named.items()}
    n_samples = 0
    # The metrics and the clock would count these batches.
    plugins = [
        p for p in strategy.plugins if not isinstance(p, (EvaluationPlugin, Clock))
    ]
    keep = random_state_kept(*generators_of(strategy.dataloader))
    with keep, _left_as_found(strategy, plugins), torch.enable_grad():
        for batch in strategy.dataloader:
            loss = _loss_of(strategy, batch, plugins)
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            size = len(strategy.mb_y)
            n_samples += size
            for name, gradient in zip(named, found, strict=True):
                if gradient is not None:
                    total[name] += size * gradient.double()
    return EpochGradient(total, n_samples)


def _loss_of(strategy: Any, batch: Any, plugins: list[Any]) -> Tensor:
    """What the template does with a batch, up to the backward pass."""
    before_iteration, before_forward, after_forward, before_backward = (
        [getattr(p, name) for p in plugins if hasattr(p, name)] for name in _CALLBACKS
    )
    strategy.mbatch = list(batch)
    strategy._unpack_minibatch()
    for callback in (*before_iteration, *before_forward):
        callback(strategy)
    strategy.loss = strategy._make_empty_loss()
    strategy.mb_output = strategy.forward()
    for callback in after_forward:
        callback(strategy)
    strategy.loss += strategy.criterion()
    for callback in before_backward:
        callback(strategy)
    return strategy.loss  # type: ignore[no-any-return]


@contextmanager
def _left_as_found(strategy: Any, plugins: list[Any]) -> Iterator[None]:
    """Evaluation mode; attributes and modes are put back at the end."""
    of_batch = {name: getattr(strategy, name) for name in _OF_BATCH}
    of_plugins = [(plugin, dict(vars(plugin))) for plugin in plugins]
    modes = {m: m.training for m in strategy.model.modules()}
    gradients = [(p, p.grad) for p in strategy.model.parameters()]
    strategy.model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for name, value in of_batch.items():
            setattr(strategy, name, value)
        for plugin, attributes in of_plugins:
            if not isinstance(plugin, nn.Module):
                vars(plugin).clear()
            vars(plugin).update(attributes)
