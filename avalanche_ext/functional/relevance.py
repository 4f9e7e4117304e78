"""Relevance of units, and which units the experiences need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from avalanche_ext.functional.precision import at_least_float32

#: Added to a sample's total, so that a layer without relevance stays at 0.
TINY = 1e-10


class Capacity(NamedTuple):
    """Units of a layer by the experience that needed them first.

    Attributes:
        first_frozen: For each experience, units it keeps that none before it kept.
        shared: For each experience, units it keeps that one before it kept.
        free: Units nobody keeps; with ``first_frozen`` they add up to all units.
    """

    first_frozen: list[int]
    shared: list[int]
    free: int


def normalised_relevance(relevance: Tensor) -> Tensor:
    r"""Share of each unit in its layer's relevance, sample by sample.

    .. math:: \hat r_{bc} = \frac{r_{bc}}{\sum_{c'} |r_{bc'}| + 10^{-10}}, \qquad
        r_{bc} = \sum_{space} R_{bc}(space)

    The sign stays: a unit that speaks against the class has a negative share.

    Args:
        relevance: R at the layer's output, ``(B, C)`` or ``(B, C, ...)``.

    Returns:
        :math:`\hat r`, ``(B, C)``, at least float32; a row's absolute values sum to 1,
        or to 0 where the layer has no relevance.

    Raises:
        ValueError: If the relevance has no unit axis.

    Example:
        >>> normalised_relevance(torch.tensor([[3.0, -1.0], [0.0, 0.0]]))
        tensor([[ 0.7500, -0.2500],
                [ 0.0000,  0.0000]])

    References:
        Bogacka et al., 2025 (ReReLRP).
    """
    if relevance.dim() < 2:
        shape = tuple(relevance.shape)
        raise ValueError(f"relevance is of shape {shape}; wanted (B, C) or (B, C, ...)")
    units = at_least_float32(relevance)
    if units.dim() > 2:
        units = units.flatten(2).sum(-1)
    return units / (units.abs().sum(1, keepdim=True) + TINY)


def accumulated_relevance(batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    r"""Relevance of each unit for a set of samples: the signed sum.

    .. math:: R_{\ell c} = \sum_{n=1}^N \hat r^{(n)}_{\ell c}, \qquad |R_{\ell c}| \le N

    Args:
        batches: By layer, the rows of `normalised_relevance`, ``(B, C_l)``; every batch
            has the same layers.

    Returns:
        R by layer, ``(C_l,)``.

    Raises:
        ValueError: If there is no sample, or a batch has other layers than the first.

    Example:
        >>> rows = torch.tensor([[0.75, -0.25], [0.5, 0.5]])
        >>> accumulated_relevance([{"fc": rows}, {"fc": rows[:1]}])
        {'fc': tensor([2., 0.])}
    """
    total: dict[str, Tensor] = {}
    n = 0
    for units in batches:
        if n and units.keys() != total.keys():
            raise ValueError(f"layers are {list(units)}; wanted {list(total)}")
        sums = {layer: rows.sum(0) for layer, rows in units.items()}
        total = {layer: total[layer] + sums[layer] for layer in total} if n else sums
        n += max((len(rows) for rows in units.values()), default=0)
    if not n:
        raise ValueError("relevance is of 0 samples; wanted at least 1")
    return total


def frozen_units(keeps: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    r"""Units that some experience keeps.

    .. math:: F_\ell = \bigcup_k \{ c : keep_{k, \ell}[c] \}

    Args:
        keeps: For each experience and layer, whether a unit is kept, bool, ``(C_l,)``;
            without the head, where each experience has rows of its own.

    Returns:
        F by layer, bool, ``(C_l,)``; no layers where there is no experience.

    Raises:
        ValueError: If the experiences' layers or their sizes differ, or a mask is not
            bool.

    Example:
        >>> keep = torch.tensor([[True, False, False], [True, True, False]])
        >>> frozen_units([{"conv": keep[0]}, {"conv": keep[1]}])
        {'conv': tensor([ True,  True, False])}

    References:
        Bogacka et al., 2025 (ReReLRP).
    """
    return {layer: keep.any(0) for layer, keep in _masks(keeps).items()}


def capacity(keeps: Sequence[Mapping[str, Tensor]]) -> dict[str, Capacity]:
    r"""How the experiences share the units of each layer.

    Experience k keeps unit c for the first time where :math:`keep_k[c]` and not
    :math:`F_k[c]`, and shares it where both, :math:`F_k` being the `frozen_units` of
    the experiences before k.

    Args:
        keeps: As in `frozen_units`.

    Returns:
        The numbers by layer.

    Raises:
        ValueError: As `frozen_units`.

    Example:
        >>> keep = torch.tensor([[True, False, False], [True, True, False]])
        >>> capacity([{"conv": keep[0]}, {"conv": keep[1]}])
        {'conv': Capacity(first_frozen=[1, 1], shared=[0, 1], free=1)}
    """
    found = {}
    for layer, keep in _masks(keeps).items():
        before = keep.cumsum(0) > keep.long()
        first = (keep & ~before).sum(1).tolist()
        shared = (keep & before).sum(1).tolist()
        found[layer] = Capacity(first, shared, keep.shape[1] - sum(first))
    return found


def _masks(keeps: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """By layer, the masks of all experiences, ``(E, C_l)``."""
    first = keeps[0] if keeps else {}
    wanted = {layer: (len(mask), torch.bool) for layer, mask in first.items()}
    for k, keep in enumerate(keeps):
        found = {layer: (len(mask), mask.dtype) for layer, mask in keep.items()}
        if found != wanted:
            raise ValueError(f"keep of experience {k} is {found}; wanted {wanted}")
    return {layer: torch.stack([keep[layer] for keep in keeps]) for layer in wanted}
