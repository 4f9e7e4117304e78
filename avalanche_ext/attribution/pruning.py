"""Which units of a network some classes need, judged by relevance."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ext.attribution.lrp import LRP
from avalanche_ext.functional.pruning import Pruning, prune
from avalanche_ext.functional.relevance import accumulated_relevance
from avalanche_ext.models.masked_accuracy import MaskedAccuracy
from avalanche_ext.models.submodels import Submodels

Samples = tuple[Tensor, Tensor]


def prune_by_relevance(
    model: nn.Module,
    submodels: Submodels,
    classes: tuple[int, ...],
    *,
    lrp: LRP,
    reference: Samples,
    validation: Samples,
    acc_drop: float,
    prune_head: bool,
    **options: Any,
) -> Pruning:
    """Rank units on reference samples, prune them while validation samples allow.

    Args:
        model: The shared network; found as it was.
        submodels: Its head, and where its units are masked.
        classes: The classes to be told from each other, ascending.
        lrp: How relevance is computed.
        reference: Inputs and class ids that give the relevance.
        validation: Inputs and class ids that give the accuracy.
        acc_drop: See `prune`.
        prune_head: Whether the head's rows may be pruned, too.
        options: Others of `prune`.

    Returns:
        The units to keep; of the head its rows for the classes.

    Raises:
        ValueError: If a relevance is not finite.
    """
    network = submodels.whole(model, classes).network
    x, y = reference
    local = torch.searchsorted(torch.tensor(classes, device=y.device), y.contiguous())
    relevance = accumulated_relevance([lrp(network, x, local).units])
    place: dict[str, Any] = {"head": submodels.head, "sites": submodels.sites}
    with MaskedAccuracy(model, *validation, classes, **place) as accuracy:
        found = prune(
            relevance,
            accuracy,
            acc_drop=acc_drop,
            fixed=() if prune_head else (submodels.head,),
            **options,
        )
    _tell_doubts(found.accuracies[0], acc_drop, len(classes), len(validation[1]))
    return found


def _tell_doubts(accuracy: float, acc_drop: float, n_classes: int, n: int) -> None:
    """Warn where the accuracy says little about what is needed."""
    if n_classes == 1:
        warnings.warn(
            "one class alone is always told right: nearly every unit may be pruned",
            stacklevel=2,
        )
    elif accuracy <= 100 / n_classes + 1:
        warnings.warn(
            f"the accuracy on validation samples is {accuracy:.1f} % of {n_classes} "
            "classes, no better than chance: nearly every unit may be pruned",
            stacklevel=2,
        )
    elif 0 < acc_drop <= 100 / n:
        warnings.warn(
            f"acc_drop is {acc_drop} points, one of {n} validation samples is "
            f"{100 / n:.1f}: no sample may be lost",
            stacklevel=2,
        )
