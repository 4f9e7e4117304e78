"""Pruning by relevance: least relevant units first, until the accuracy drops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from avalanche_ext._checks import require_choice, require_real, require_whole

Step = Literal["bins"] | int
Keep = Mapping[str, Tensor]


class Pruning(NamedTuple):
    """What pruning found.

    Attributes:
        keep: By layer, whether a unit is kept, bool, ``(C_l,)``.
        accuracies: A, percent: unpruned, then after each step, undone ones included.
        step_sizes: Units each step removed, undone ones included.
        steps_kept: Steps not undone: ``accuracies[steps_kept]`` is that of ``keep``.
    """

    keep: dict[str, Tensor]
    accuracies: list[float]
    step_sizes: list[int]
    steps_kept: int


def relevance_steps(
    relevance: Mapping[str, Tensor],
    step: Step = "bins",
    *,
    fixed: Collection[str] = (),
    min_units: int = 0,
    bins: int = 10_000,
) -> list[Tensor]:
    """Units in the order in which they are pruned, grouped into steps.

    The units of all layers compete by their signed relevance, the smallest first:
    units that speak against the class go before dead ones.

    Args:
        relevance: R by layer, ``(C_l,)``, all on one device.
        step: ``"bins"``: a step is what falls into one of ``bins`` equal bins between
            the smallest and the largest relevance, as `numpy.histogram` counts: nearly
            always one unit, or all units of equal relevance. A number: so many units
            (those of equal relevance in the order of layers and units).
        fixed: Layers never pruned. They still widen the bins.
        min_units: Most relevant units of each layer never pruned, >= 0.
        bins: Number of bins, >= 1.

    Returns:
        For each step the units' numbers, int64, counted through the layers in the order
        of ``relevance``. Units never pruned are in none, and no step is empty.

    Raises:
        ValueError: If a relevance is not finite or not ``(C_l,)``, a layer of ``fixed``
            unknown, or a number out of its range.

    Example:
        >>> relevance = {"conv": torch.tensor([5.0, 0.0]), "fc": torch.tensor([0.0, -2.0])}
        >>> relevance_steps(relevance)
        [tensor([3]), tensor([1, 2]), tensor([0])]
        >>> relevance_steps(relevance, 2, min_units=1)
        [tensor([3, 1])]

    References:
        Bogacka et al., 2025 (ReReLRP); Ede et al., 2022 (Explain to Not Forget).
    """
    require_whole(0, min_units=min_units)
    require_whole(1, bins=bins)
    if isinstance(step, str):
        require_choice(("bins",), step=step)
    else:
        require_whole(1, step=step)
    _require_relevance(relevance, fixed)
    # float64, which not every device has
    layers = {name: r.detach().cpu().double() for name, r in relevance.items()}
    values = torch.cat(list(layers.values()))
    order = values.argsort(stable=True)
    prunable = torch.cat(
        [
            _prunable(r, len(r) if name in fixed else min_units)
            for name, r in layers.items()
        ]
    )
    order = order[prunable[order]]
    if not len(order):
        return []
    sizes = _bin_sizes(values, order, bins) if isinstance(step, str) else step
    return list(torch.split(order.to(_device(relevance)), sizes))


def prune(
    relevance: Mapping[str, Tensor],
    accuracy: Callable[[Keep], float],
    *,
    acc_drop: float,
    step: Step = "bins",
    fixed: Collection[str] = (),
    min_units: int = 1,
    patience: int = 0,
    bins: int = 10_000,
) -> Pruning:
    r"""Remove the least relevant units as long as the accuracy holds.

    After step i it holds while :math:`A_0 - A_i < acc\_drop`, always against the
    unpruned network; with ``acc_drop`` 0 while :math:`A_i \ge A_0`. What the step that
    breaks the limit removed is put back. Relevance is not computed again.

    Args:
        relevance: R by layer, see `relevance_steps`.
        accuracy: Accuracy A in percent of the network without the units where ``keep``
            is False. It is called before the first step and after each; the tensors it
            is given are the same all along and change in place: not to be altered, nor
            kept without a copy.
        acc_drop: Percentage points that must not be lost, >= 0.
        step: See `relevance_steps`.
        fixed: Layers never pruned, such as the head; see `relevance_steps`.
        min_units: Units every layer keeps at least, >= 0 (the published code: 0).
        patience: Steps in a row that may break the limit before pruning ends, >= 0. The
            result is the last state that held.
        bins: See `relevance_steps`.

    Returns:
        The units to keep, and how that was found.

    Raises:
        ValueError: If an argument is out of its range, a relevance is not finite or
            ``accuracy`` returns no number.

    Example:
        >>> relevance = {"fc": torch.tensor([3.0, -1.0, 2.0])}
        >>> needs_first = lambda keep: 100.0 if keep["fc"][0] else 0.0
        >>> prune(relevance, needs_first, acc_drop=1, min_units=0)
        Pruning(keep={'fc': tensor([ True, False, False])},
            accuracies=[100.0, 100.0, 100.0, 0.0], step_sizes=[1, 1, 1], steps_kept=2)

    References:
        Bogacka et al., 2025 (ReReLRP).
    """
    require_real(0, acc_drop=acc_drop)
    require_whole(0, patience=patience)
    steps = relevance_steps(
        relevance, step, fixed=fixed, min_units=min_units, bins=bins
    )
    sizes = [len(r) for r in relevance.values()]
    kept = torch.ones(sum(sizes), dtype=torch.bool, device=_device(relevance))
    keep = dict(zip(relevance, torch.split(kept, sizes), strict=True))
    accuracies = [_measured(accuracy, keep)]
    held, steps_kept = kept.clone(), 0
    for i, units in enumerate(steps, 1):
        kept[units] = False
        accuracies.append(_measured(accuracy, keep))
        if _holds(accuracies[0], accuracies[-1], acc_drop):
            held.copy_(kept)
            steps_kept = i
        elif i - steps_kept > patience:
            break
    done = [len(units) for units in steps[: len(accuracies) - 1]]
    kept.copy_(held)
    found = {name: part.clone() for name, part in keep.items()}
    return Pruning(found, accuracies, done, steps_kept)


def _require_relevance(relevance: Mapping[str, Tensor], fixed: Collection[str]) -> None:
    if not relevance:
        raise ValueError("relevance is of 0 layers; wanted at least 1")
    for layer, r in relevance.items():
        if r.dim() != 1:
            shape = tuple(r.shape)
            raise ValueError(f"relevance of {layer!r} is of shape {shape}; wanted (C,)")
        if not r.isfinite().all():
            raise ValueError(
                f"relevance of {layer!r} is not finite; wanted finite values "
                "(did the logits explode?)"
            )
    for layer in fixed:
        if layer not in relevance:
            wanted = ", ".join(map(repr, relevance))
            raise ValueError(f"fixed is {layer!r}; wanted some of {wanted}")


def _prunable(relevance: Tensor, n: int) -> Tensor:
    """All units of a layer but the n most relevant."""
    found = torch.zeros(len(relevance), dtype=torch.bool)
    found[relevance.argsort(stable=True)[: max(0, len(relevance) - n)]] = True
    return found


def _bin_sizes(values: Tensor, order: Tensor, bins: int) -> list[int]:
    """How many of the ordered units share a bin of the histogram of all values."""
    low, high = values.min(), values.max()
    # the edges of numpy.linspace, to the bit; a bin holds its left edge, the last both
    edges = torch.arange(bins + 1, dtype=values.dtype) * ((high - low) / bins) + low
    numbers = torch.bucketize(values[order], edges, right=True).clamp_max(bins)
    sizes: list[int] = torch.unique(numbers, return_counts=True)[1].tolist()
    return sizes


def _device(relevance: Mapping[str, Tensor]) -> torch.device:
    return next(iter(relevance.values())).device


def _measured(accuracy: Callable[[Keep], float], keep: Keep) -> float:
    found = accuracy(keep)
    require_real(0, accuracy=found)
    return found


def _holds(before: float, now: float, acc_drop: float) -> bool:
    return before - now < acc_drop if acc_drop else now >= before
