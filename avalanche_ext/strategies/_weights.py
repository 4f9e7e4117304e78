"""Some weights of a model, and their groups in an optimizer."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.optim import Optimizer


def depthwise_weights(model: nn.Module) -> Iterator[nn.Parameter]:
    """Weights and biases of two-dimensional depthwise convolutions.

    Args:
        model: Any model.

    Yields:
        The parameters.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1:
            yield from layer.parameters(recurse=False)


def give_group(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    """Put parameters into a group of their own, with the options they had.

    Args:
        optimizer: Changed in place.
        parameters: Those it does not know are left alone, and a group that has no
            others stays.
    """
    theirs = {id(p) for p in parameters}
    for group in list(optimizer.param_groups):
        moved = [p for p in group["params"] if id(p) in theirs]
        if moved and len(moved) < len(group["params"]):
            group["params"] = [p for p in group["params"] if id(p) not in theirs]
            optimizer.add_param_group({**group, "params": moved})
