"""Class ids and the class means of exemplars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from avalanche_ext.buffers.exemplar_steps import Batch, Exemplars
from avalanche_ext.functional.nearest_mean import mean_classifier_gradient


def class_mean_gradient(
    model: Any,
    exemplars: Exemplars,
    batch: Batch,
    old_means: Mapping[int, Tensor],
    chunk: int | None,
) -> tuple[Tensor, Tensor]:
    """Objective "ncm": how well class means of exemplars classify a batch.

    Args:
        model: Its ``feature_extractor`` is used; found as it was.
        exemplars: Their classes' means move.
        batch: ``(x, y)``; samples of classes without a mean are left out.
        old_means: Of features of other classes by id; constants.
        chunk: Inputs at once; None: all.

    Returns:
        Loss and gradient, see `mean_classifier_gradient`.

    Raises:
        ValueError: If the model has no feature extractor.
    """
    if not hasattr(model, "feature_extractor"):
        raise ValueError(
            f"{type(model).__name__} has no feature_extractor; wanted a "
            "FeatureClassifier for objective 'ncm': as_feature_classifier(model)"
        )
    x, y = batch
    new = torch.unique(exemplars.y)
    ids = torch.cat([new.new_tensor([c for c in old_means]), new])
    column = y.new_full((int(torch.cat([ids, y]).max()) + 1,), -1)
    column[ids] = torch.arange(len(ids), device=y.device)
    known = column[y] >= 0
    means = torch.stack(list(old_means.values())) if old_means else None
    loss, gradient = mean_classifier_gradient(
        model.feature_extractor,
        exemplars.x,
        column[exemplars.y],
        x[known],
        column[y[known]],
        old_means=means,
        chunk=chunk,
    )
    return loss, gradient
