"""From the second experience on, convolutions learn scales of frozen kernels."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin

from avalanche_ext.models.transfer_conv import transfer_convolutions


class WeightTransferPlugin(SupervisedPlugin):
    """Freeze the convolutions after the first experience; train scale and shift.

    The model must hold `TransferConv2d` layers, see `to_transfer_network`.

    Callbacks: after the data adaptation of every experience but the strategy's first,
    and so before Avalanche adapts model and optimizer, the transfer of all
    convolutions begins where it has not yet. In the optimizer the new parameters take
    the places of the frozen ones, in the same groups; they start without momentum.
    Batch normalisation, classifier and all else train on. Keeps nothing: what has
    begun is part of the model, and stays.

    Raises:
        ValueError: Before training, if the model holds no such layer, or the weight
            of one is computed from others.

    Example:
        >>> from torch import nn
        >>> from avalanche_ext.models import to_transfer_network
        >>> model = to_transfer_network(nn.Sequential(nn.Conv2d(3, 8, 3)))
        >>> plugins = [WeightTransferPlugin()]

    References:
        Liu et al., CVPR 2020 (mnemonics), section 4.1; Sun et al., CVPR 2019.
    """

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a model that does not fit, before any work."""
        transfer_convolutions(strategy.model)

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Begin the transfer, and let the optimizer follow."""
        if not strategy.clock.train_exp_counter:
            return
        # Avalanche would add the new parameters, but neither drop the old ones nor
        # always find the group.
        replaced: dict[Any, Any] = {}
        for layer in transfer_convolutions(strategy.model):
            replaced |= layer.begin_transfer()
        for group in strategy.optimizer.param_groups:
            group["params"] = [replaced.get(p, p) for p in group["params"]]
        for old in replaced:
            strategy.optimizer.state.pop(old, None)
