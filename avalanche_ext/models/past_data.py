"""What a model says of whole data sets, and how its loss changes there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from avalanche.benchmarks import CLExperience
from avalanche.models import MultiTaskModule, avalanche_forward
from avalanche.models.utils import is_multi_task_module
from torch import Tensor, nn
from torch.nn.functional import pad

from avalanche_ext.functional.fisher import FisherKind, diagonal_fisher
from avalanche_ext.functional.functional_prior import MASKED
from avalanche_ext.functional.precision import at_least_float32
from avalanche_ext.models.feature_classifier import evaluating
from avalanche_ext.models.task_classifier import (
    TaskClassifier,
    TaskIncrementalClassifier,
)

FisherOutputs = Literal["head", "all"]

#: Inputs, targets and task labels, None on streams without; what more, depends.
Batch = tuple[Tensor, Tensor, Tensor | None]


def forward(model: nn.Module, x: Tensor, task_labels: Tensor | None) -> Tensor:
    """Logits, by a model with or without task labels.

    Args:
        model: Any model.
        x: Inputs.
        task_labels: Shape ``(B,)``; None on streams without.

    Returns:
        Logits, shape ``(B, W)``.
    """
    if task_labels is None:
        return model(x)  # type: ignore[no-any-return]
    return avalanche_forward(model, x, task_labels)  # type: ignore[no-any-return]


def logits_of(model: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Logits and targets of a whole data set, in evaluation mode.

    Args:
        model: Any model; found as it was.
        batches: See `avalanche_ext.loaders.batches_of`; at least one.

    Returns:
        Logits ``(N, W)``, float32 at least, and targets ``(N,)``.
    """
    logits, targets = [], []
    with evaluating(model):
        for x, y, t in batches:
            logits.append(forward(model, x, t))
            targets.append(y)
    return at_least_float32(torch.cat(logits)), torch.cat(targets)


def finite_logits_of(
    model: nn.Module, batches: Iterable[Batch], what: str
) -> tuple[Tensor, Tensor]:
    """Logits and targets of a whole data set, as `logits_of`.

    Args:
        model: Any model; found as it was.
        batches: See `avalanche_ext.loaders.batches_of`; at least one.
        what: The data set, for the message.

    Returns:
        As `logits_of`.

    Raises:
        ValueError: If the logits are not finite.
    """
    logits, targets = logits_of(model, batches)
    if not bool(logits.isfinite().all()):
        raise ValueError(
            f"the logits of {what} are not finite; wanted finite numbers: did training "
            "diverge?"
        )
    return logits, targets


def of_width(logits: Tensor, width: int) -> Tensor:
    """Logits with more classes, the new ones masked, or with fewer.

    Those beyond the classes that a model was trained on are masked ones, which it gave
    because an evaluation had met classes to come: they may go.

    Args:
        logits: Shape ``(B, K)``.
        width: Number of classes.

    Returns:
        Shape ``(B, width)``.
    """
    more = width - logits.shape[1]
    return pad(logits, (0, more), value=MASKED) if more > 0 else logits[:, :width]


def parameters_by_name(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that are trained.

    Args:
        model: Any model.

    Returns:
        By name.
    """
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def summed_gradient(
    model: nn.Module,
    batches: Iterable[tuple[Any, ...]],
    loss: Callable[..., Tensor],
) -> dict[str, Tensor]:
    """Gradient of a sum over a data set, in evaluation mode, in float64.

    The model's own gradients, modes and buffers are left as found.

    Args:
        model: Any model.
        batches: ``(x, y, t, ...)``, see `avalanche_ext.loaders.batches_of`.
        loss: From logits and what follows x in a batch to a scalar.

    Returns:
        By name of each trained parameter, in its shape.
    """
    named = parameters_by_name(model)
    total = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in named.items()}
    with evaluating(model), torch.enable_grad():
        for x, y, t, *rest in batches:
            value = loss(forward(model, x, t), y, t, *rest)
            found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
            for name, gradient in zip(named, found, strict=True):
                if gradient is not None:
                    total[name] += gradient
    return total


def data_fisher(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    kind: FisherKind,
    outputs: FisherOutputs = "head",
    chunk: int = 32,
) -> dict[str, Tensor]:
    """Diagonal Fisher of a data set, task by task, in evaluation mode.

    Args:
        model: Any model; found as it was.
        batches: See `avalanche_ext.loaders.batches_of`; may be none.
        kind: See `diagonal_fisher`.
        outputs: ``"head"``: of the softmax over the classes of a sample's task.
            ``"all"``: over all rows of a `TaskClassifier`, with labels counted from 0
            in each task, as the published code has it.
        chunk: Examples at once, >= 1.

    Returns:
        By name of each trained parameter, in its shape.

    Raises:
        ValueError: If ``outputs="all"`` and the model has no `TaskClassifier`.
    """
    head = require_task_classifier(model) if outputs == "all" else None
    total = {n: torch.zeros_like(p) for n, p in parameters_by_name(model).items()}
    with evaluating(model), torch.enable_grad():
        for x, y, t in batches:
            for x_t, y_t, arguments in _by_task(model, x, y, t):
                options: dict[str, Any] = {
                    "kind": kind,
                    "chunk": chunk,
                    "arguments": arguments,
                }
                if head is None:
                    found = diagonal_fisher(model, x_t, y_t, **options)
                else:
                    y_t = head.positions_in_task(y_t, *(arguments or (0,)))
                    with head.all_outputs():
                        found = diagonal_fisher(model, x_t, y_t, **options)
                for name, value in found.items():
                    total[name] += value
    return total


def require_task_classifier(model: nn.Module) -> TaskClassifier:
    """The `TaskClassifier` of a model.

    Args:
        model: Any model.

    Returns:
        Its ``train_classifier``.

    Raises:
        ValueError: If it is none.
    """
    head = getattr(model, "train_classifier", None)
    if isinstance(head, TaskClassifier):
        return head
    raise ValueError(
        f"the classifier of {type(model).__name__} is a {type(head).__name__}; wanted a "
        "TaskClassifier for fisher_outputs='all': TaskIncrementalClassifier("
        "feature_extractor, TaskClassifier(feature_size, n_outputs))"
    )


def _by_task(
    model: nn.Module, x: Tensor, y: Tensor, t: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, tuple[int, ...]]]:
    """Samples of one task at a time, with the further arguments of the model."""
    if t is None or not is_multi_task_module(model):
        yield x, y, ()
        return
    for task in torch.unique(t).tolist():
        mine = t == task
        yield x[mine], y[mine], (task,)


def require_task_labels(model: nn.Module, experience: CLExperience) -> None:
    """Refuse a stream without task labels where a model cannot do without.

    Args:
        model: Any model.
        experience: The experience about to be trained.

    Raises:
        ValueError: If the model has several heads, as Avalanche's, and the experience
            no task labels. A `TaskClassifier` does without.
    """
    # also where it is the classifier of a TaskIncrementalClassifier
    kinds = {type(m) for m in model.modules() if isinstance(m, MultiTaskModule)}
    several = [k for k in kinds if not issubclass(k, TaskIncrementalClassifier)]
    if several and not hasattr(experience, "task_labels"):
        raise ValueError(
            f"{several[0].__name__} has several heads, but the experience has no "
            "task_labels; wanted a benchmark with them, e.g. SplitMNIST(..., "
            "return_task_id=True), or a TaskClassifier, which does without"
        )
