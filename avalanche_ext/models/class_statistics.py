"""Statistics of classes in the features of a model, rows as in its classifier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from avalanche.models import avalanche_forward
from torch import Tensor, nn
from torch.nn.functional import normalize

from avalanche_ext._ranks import n_ranks, total_over_ranks
from avalanche_ext.functional.class_statistics import (
    ClassStatistics,
    class_statistics,
    merge_statistics,
    sum_statistics,
)
from avalanche_ext.functional.logit_adjustment import TINY
from avalanche_ext.functional.precision import at_least_float32
from avalanche_ext.models.cosine_classifier import CosineClassifier
from avalanche_ext.models.feature_classifier import evaluating


def rows_of(model: nn.Module, targets: Tensor) -> Tensor:
    """Row of each class id: its place in a cosine classifier, else the id itself.

    Args:
        model: A model as in `FeatureClassifier`.
        targets: Class ids, int64, any shape.

    Returns:
        int64, the same shape.
    """
    head = getattr(model, "train_classifier", None)
    return head.positions(targets) if isinstance(head, CosineClassifier) else targets


def batch_statistics(
    model: Any, targets: Tensor, n_classes: int, *, unit_length: bool = False
) -> ClassStatistics:
    """Statistics of the batch that the model has just seen, over all processes.

    Args:
        model: A model as in `FeatureClassifier`.
        targets: Class ids of the batch, int64, shape ``(B,)``.
        n_classes: Number of rows K.
        unit_length: Measure the features at unit length.

    Returns:
        The statistics.
    """
    own = _of_this_process(model, targets, n_classes, unit_length)
    return own if n_ranks() == 1 else sum_statistics(own, total_over_ranks)


def data_statistics(
    model: Any,
    batches: Iterable[list[Tensor]],
    device: torch.device,
    *,
    unit_length: bool = False,
) -> tuple[Tensor, ClassStatistics]:
    """Statistics of a whole data set in one pass, in evaluation mode.

    Args:
        model: A model as in `FeatureClassifier`; found as it was.
        batches: ``[x, y, ..., task label]``; all processes together make the data.
        device: Where the model is.
        unit_length: Measure the features at unit length.

    Returns:
        Class id of each row, int64, shape ``(K,)``, and the statistics.

    Raises:
        ValueError: If there is no batch, or a class id has no column in the logits.
    """
    found: ClassStatistics | None = None
    classes = torch.empty(0)
    with evaluating(model):
        for batch in batches:
            x, y, task = (batch[i].to(device) for i in (0, 1, -1))
            logits = avalanche_forward(model, x, task)
            if found is None:
                classes = _class_of_each_row(model, logits)
            part = _of_this_process(model, y, len(classes), unit_length)
            found = merge_statistics(found, part) if found else part
    if found is None:
        raise ValueError("the loader delivers no batch; wanted at least one")
    return classes, found if n_ranks() == 1 else sum_statistics(found, total_over_ranks)


def require_finite(classes: Tensor, broken: Tensor) -> None:
    """Refuse features that would make a loss nan.

    Args:
        classes: Class id of each row, shape ``(K,)``.
        broken: Rows whose features were not finite, bool, ``(K,)``.

    Raises:
        ValueError: If there is one; names the classes.
    """
    if broken.any():
        raise ValueError(
            f"features of classes {classes[broken].tolist()} hold nan or infinity; "
            "wanted finite ones: try a lower learning rate"
        )


def require_spread(classes: Tensor, data: ClassStatistics) -> None:
    """Refuse classes whose features are all the same.

    Args:
        classes: Class id of each row, shape ``(K,)``.
        data: Their statistics.

    Raises:
        ValueError: If there is one among those with samples; names the classes.
    """
    flat = (data.counts > 0) & (data.dispersions <= TINY)
    if flat.any():
        raise ValueError(
            f"features of classes {classes[flat].tolist()} have no spread; wanted at "
            "least two different samples of each class in the training data"
        )


def _of_this_process(
    model: Any, targets: Tensor, n_classes: int, unit_length: bool
) -> ClassStatistics:
    features = model.features
    if unit_length:
        features = normalize(at_least_float32(features), dim=1)
    return class_statistics(features, rows_of(model, targets), n_classes)


def _class_of_each_row(model: Any, logits: Tensor) -> Tensor:
    head = getattr(model, "train_classifier", None)
    if isinstance(head, CosineClassifier):
        return head.class_order.clone()
    return torch.arange(logits.shape[1], device=logits.device)
