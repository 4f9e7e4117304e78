"""Arguments of `hypergradient`: what is wrong with them, and their plain forms."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from avalanche_ext._checks import (
    require_choice,
    require_kind,
    require_real,
    require_whole,
)

InnerParameters = Literal["trainable", "all", "head"] | Collection[str]


def check_examples(name: str, x: Tensor, of_targets: str, y: Tensor) -> None:
    """Refuse what are no inputs with a class id each."""
    require_kind(Tensor, **{name: x, of_targets: y})
    if not x.is_floating_point():
        raise ValueError(f"{name} is {x.dtype}; wanted a floating type")
    if not x.ndim or not len(x):
        raise ValueError(f"{name} has shape {tuple(x.shape)}; wanted at least one row")
    if y.dtype != torch.long or y.shape != x.shape[:1]:
        raise ValueError(
            f"{of_targets} is {y.dtype} of shape {tuple(y.shape)}; wanted int64 of "
            f"shape ({len(x)},), a class id for each row of {name}"
        )


def check_batches(batches: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Refuse what is no sequence of inputs and class ids."""
    if not isinstance(batches, Sequence) or not batches:
        seen = "empty" if isinstance(batches, Sequence) else type(batches).__name__
        raise ValueError(f"batches is {seen}; wanted at least one pair (x, y)")
    for i, pair in enumerate(batches):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            size = f" of {len(pair)}" if isinstance(pair, (tuple, list)) else ""
            raise ValueError(
                f"batches[{i}] is a {type(pair).__name__}{size}; wanted a pair (x, y)"
            )
        check_examples(f"batches[{i}][0]", pair[0], f"batches[{i}][1]", pair[1])


def inner_rates(inner_lr: float | Sequence[float], n_steps: int) -> list[float]:
    """One a step."""
    if not isinstance(inner_lr, Sequence):
        require_real(0, inner_lr=inner_lr)
        return [float(inner_lr)] * n_steps
    for i, rate in enumerate(inner_lr):
        require_real(0, **{f"inner_lr[{i}]": rate})
    if len(inner_lr) != n_steps:
        raise ValueError(
            f"inner_lr is of {len(inner_lr)} steps; wanted {n_steps}, inner_steps"
        )
    return [float(rate) for rate in inner_lr]


def inner_rows(
    rows: Sequence[Tensor] | None, n_steps: int, exemplars: Tensor
) -> list[Tensor]:
    """Those of each step, on the device of the exemplars."""
    if rows is None:
        return [torch.arange(len(exemplars), device=exemplars.device)] * n_steps
    if len(rows) != n_steps:
        raise ValueError(f"rows is of {len(rows)} steps; wanted {n_steps}, inner_steps")
    for i, each in enumerate(rows):
        require_kind(Tensor, **{f"rows[{i}]": each})
        if each.dtype != torch.long or each.ndim != 1 or not len(each):
            raise ValueError(
                f"rows[{i}] is {each.dtype} of shape {tuple(each.shape)}; wanted int64 "
                "of shape (m,), m at least 1"
            )
    if rows:
        low, high = torch.cat(list(rows)).aminmax()
        if low < 0 or high >= len(exemplars):
            raise ValueError(
                f"rows has numbers from {int(low)} to {int(high)}; wanted 0 to "
                f"{len(exemplars) - 1}, the rows of exemplars"
            )
    return [each.to(exemplars.device) for each in rows]


def free_steps(truncate: int | None, n_steps: int) -> int:
    """Number of last steps that see the exemplars as variable."""
    if truncate is None:
        return n_steps
    require_whole(1, truncate=truncate)
    if truncate > n_steps:
        raise ValueError(f"truncate is {truncate}; wanted 1 to inner_steps, {n_steps}")
    return truncate


def check_batch_statistics(
    model: nn.Module, chunk: int | None, batches: list[Tensor]
) -> None:
    """Refuse what batch normalisation over the batch cannot do."""
    if chunk is not None:
        raise ValueError(
            f"chunk is {chunk}; wanted None with batchnorm='batch', where each example "
            "depends on the whole batch"
        )
    smallest = min(len(each) for each in batches)
    if smallest < 2 and any(isinstance(m, _BatchNorm) for m in model.modules()):
        raise ValueError(
            "a batch of exemplars or data is of 1 example; wanted at least 2 with "
            "batchnorm='batch': one has no variance"
        )


def inner_names(model: nn.Module, parameters: InnerParameters) -> list[str]:
    """Of the parameters that take part."""
    known = {n: p for n, p in model.named_parameters() if p.is_floating_point()}
    if isinstance(parameters, str):
        require_choice(("trainable", "all", "head"), parameters=parameters)
        names = list(known)
        if parameters == "trainable":
            names = [n for n, p in known.items() if p.requires_grad]
        elif parameters == "head":
            head = feature_parts(model)[1]
            names = [f"train_classifier.{n}" for n, _ in head.named_parameters()]
    else:
        require_kind(Collection, parameters=parameters)
        names = [n for n in known if n in parameters]
        if unknown := [n for n in parameters if n not in known]:
            raise ValueError(
                f"parameters has {', '.join(map(repr, unknown))}; wanted names of the "
                f"model's parameters: {', '.join(known)}"
            )
    if not names:
        raise ValueError(
            f"parameters is {parameters!r}, which holds none of this model; wanted at "
            "least one, e.g. parameters='all' where all are frozen"
        )
    return names


def feature_parts(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Feature extractor and classifier."""
    found = [getattr(model, n, None) for n in ("feature_extractor", "train_classifier")]
    extractor, head = found
    if isinstance(extractor, nn.Module) and isinstance(head, nn.Module):
        return extractor, head
    raise ValueError(
        f"{type(model).__name__} has no feature_extractor and train_classifier; wanted "
        "a FeatureClassifier for parameters='head': as_feature_classifier(model) makes "
        "one"
    )
