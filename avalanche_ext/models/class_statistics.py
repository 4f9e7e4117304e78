"""Statistics of classes in the features of a model, rows as in its classifier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from avalanche.models import MultiTaskModule, avalanche_forward
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

CountSource = Literal["auto", "targets", "loader"]


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
        ValueError: If there is no batch, ``batches`` can be passed over only once, a
            class id has no column in the logits, or means another class in each task.
    """
    if iter(batches) is batches:
        raise ValueError(
            f"the loader is a {type(batches).__name__}, which this pass would use up; "
            "wanted one that begins anew in each epoch"
        )
    found: ClassStatistics | None = None
    classes = torch.empty(0)
    task_of: dict[int, int] = {}
    with evaluating(model):
        for batch in batches:
            x, y, task = (batch[i].to(device) for i in (0, 1, -1))
            logits = avalanche_forward(model, x, task)
            if found is None:
                classes = _class_of_each_row(model, logits)
            _require_meaning(model, y, task, classes, task_of)
            part = _of_this_process(model, y, len(classes), unit_length)
            found = merge_statistics(found, part) if found else part
    if found is None:
        raise ValueError("the loader delivers no batch; wanted at least one")
    return classes, found if n_ranks() == 1 else sum_statistics(found, total_over_ranks)


def class_counts(
    model: nn.Module,
    targets: Iterable[int],
    classes: Tensor,
    delivered: Tensor,
    source: CountSource,
) -> Tensor:
    """Samples of each class in the training data.

    Args:
        model: A model as in `FeatureClassifier`.
        targets: Class ids of the data set.
        classes: Class id of each row, shape ``(K,)``.
        delivered: Samples of each class that one epoch delivered, ``(K,)``.
        source: ``"targets"``: those of the data set. ``"loader"``: those delivered; a
            class that happened to be missed counts as in the data set. ``"auto"``: the
            former unless more of a class were delivered.

    Returns:
        Shape ``(K,)``.

    Raises:
        ValueError: If the data set lacks a class that was delivered, for ``"targets"``.
    """
    rows = rows_of(model, torch.tensor(list(targets)).to(delivered.device))
    counts = rows.bincount(minlength=len(delivered)).to(delivered)
    if source == "targets":
        lacking = (counts == 0) & (delivered > 0)
        if lacking.any():
            raise ValueError(
                f"psi_source is 'targets', but classes {classes[lacking].tolist()} come "
                "from the loader and not from the data set; wanted 'auto' or 'loader'"
            )
        return counts
    if source == "auto" and bool((delivered <= counts).all()):
        return counts
    return torch.where(delivered > 0, delivered, counts)


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


def _require_meaning(
    model: nn.Module,
    targets: Tensor,
    tasks: Tensor,
    classes: Tensor,
    task_of: dict[int, int],
) -> None:
    """Refuse a class id without a row, or with a different class in each task."""
    ids = set(targets.tolist())
    unknown = sorted(ids - set(classes.tolist()))
    if unknown:
        raise ValueError(
            f"the data hold classes {unknown}, but the classifier has {len(classes)} "
            "columns; wanted one for each class"
        )
    if isinstance(model, MultiTaskModule):
        for label, task in zip(targets.tolist(), tasks.tolist(), strict=True):
            if task_of.setdefault(label, task) != task:
                raise ValueError(
                    f"class {label} occurs under the task labels {task_of[label]} and "
                    f"{task} of a model with a head for each; wanted class ids that "
                    "differ between tasks: class_ids_from_zero_from_first_exp=True"
                )


def _of_this_process(
    model: Any, targets: Tensor, n_classes: int, unit_length: bool
) -> ClassStatistics:
    features = model.features
    if not isinstance(features, Tensor) or len(features) != len(targets):
        shape = getattr(features, "shape", None)
        raise ValueError(
            f"model.features has shape {shape and tuple(shape)} after a batch of "
            f"{len(targets)}; wanted the features of that batch, ({len(targets)}, D)"
        )
    if unit_length:
        features = normalize(at_least_float32(features), dim=1)
    return class_statistics(features, rows_of(model, targets), n_classes)


def _class_of_each_row(model: Any, logits: Tensor) -> Tensor:
    head = getattr(model, "train_classifier", None)
    if isinstance(head, CosineClassifier):
        return head.class_order.clone()
    return torch.arange(logits.shape[1], device=logits.device)
