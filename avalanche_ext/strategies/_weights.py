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


def give_group(
    optimizer: Optimizer, parameters: list[nn.Parameter]
) -> list[tuple[int, int]]:
    """Put parameters into a group of their own, with the options they had.

    Args:
        optimizer: Changed in place.
        parameters: Those it does not know are left alone; a group that has no others
            stays.

    Returns:
        Positions of a group of others, where there is one, and of theirs.
    """
    theirs, positions = {id(p) for p in parameters}, []
    groups = list(optimizer.param_groups)
    for i, group in enumerate(groups):
        moved = [p for p in group["params"] if id(p) in theirs]
        if moved and len(moved) < len(group["params"]):
            group["params"] = [p for p in group["params"] if id(p) not in theirs]
            positions.append((i, len(optimizer.param_groups)))
            optimizer.add_param_group({**group, "params": moved})
        elif moved and len(groups) > 1:
            positions.append((0 if i else 1, i))
    return positions
