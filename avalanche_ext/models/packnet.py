"""The submodels of Avalanche's PackNet."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from avalanche.models.packnet import (
    PackNetModel,
    PackNetModule,
    WeightAndBiasPackNetModule,
)
from torch import nn

from avalanche_ext._checks import require_kind
from avalanche_ext.models.linear_head import linear_head_name
from avalanche_ext.models.submodel import Submodel
from avalanche_ext.models.unit_layers import unit_layers


def packnet_submodels(
    model: PackNetModel, classes: Sequence[Sequence[int]]
) -> list[Submodel]:
    """What PackNet has packed so far, an ordinary network for each experience.

    Args:
        model: After training; left as found.
        classes: Class ids of each experience, also of those to come.

    Returns:
        One submodel for each experience trained. It never changes any more, unless the
        optimizer has weight decay, from which PackNet does not guard its weights.

    Raises:
        ValueError: If the model is no `PackNetModel`, has a `PackNetModule` that is
            no wrapped layer, or has packed more experiences than there are lists of
            classes.

    References:
        Mallya, Lazebnik, PackNet, CVPR 2018.
    """
    require_kind(PackNetModel, model=model)
    n = model.task_count
    if n > len(classes):
        raise ValueError(f"classes are those of {len(classes)} experiences; wanted {n}")
    found = []
    for k in range(n):
        network = _plain(copy.deepcopy(model.wrappee), k)
        head = linear_head_name(network)
        own = tuple(sorted(int(c) for c in classes[k]))
        sites = {name: name for name in unit_layers(network)}
        found.append(Submodel(network, {}, own, head=head, sites=sites))
    return found


@torch.no_grad()
def _plain(module: nn.Module, k: int) -> nn.Module:
    """Ordinary layers, with the weights of the first k + 1 experiences only."""
    if isinstance(module, WeightAndBiasPackNetModule):
        layer = module.wrappee
        layer.weight.mul_(module.task_index <= k)
        return layer  # type: ignore[no-any-return]
    if isinstance(module, PackNetModule):
        raise ValueError(  # noqa: TRY004
            f"the model has a {type(module).__name__}; wanted wrapped layers only"
        )
    for name, child in list(module.named_children()):
        setattr(module, name, _plain(child, k))
    return module
