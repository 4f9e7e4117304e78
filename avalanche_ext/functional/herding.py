"""Choice of the exemplars whose mean stays closest to the mean of their class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

HerdingVariant = Literal["without_replacement", "lucir"]


def herding_indices(
    features: Tensor, n: int, variant: HerdingVariant = "without_replacement"
) -> Tensor:
    r"""Greedy ranking of one class's samples by herding of unit features.

    With :math:`\bar f` the features scaled to unit length and :math:`\mu` their
    mean, the k-th pick minimises :math:`\lVert \mu - (S_{k-1} + \bar f_i)/k \rVert`,
    which for unit rows is

    .. math:: i_k = \arg\max_{i \text{ unused}} \langle \bar f_i,\, k \mu - S_{k-1}
        \rangle, \qquad S_k = S_{k-1} + \bar f_{i_k}

    A shorter ranking is a prefix of a longer one.

    Args:
        features: Features of the samples of one class, shape ``(N, D)``, N > 0;
            need not be normalised.
        n: Number of picks, ``1 <= n <= N``.
        variant: ``"without_replacement"`` as above; ``"lucir"``: as in LUCIR's own
            loop, where a used sample may win again: it is not stored twice but
            moves the running sum. It stops after 1000 rounds, so that fewer than
            ``n`` indices may come back.

    Returns:
        Distinct row numbers, int64, in order of selection, shape ``(n,)``.

    Raises:
        ValueError: If ``n`` is not in ``1 .. N`` or the variant is unknown.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
        >>> herding_indices(x, 2)
        tensor([1, 2])

    References:
        Welling, ICML 2009; Rebuffi et al., CVPR 2017 (iCaRL), Algorithm 4.
    """
    if not 1 <= n <= len(features):
        raise ValueError(f"{n} exemplars wanted of {len(features)} samples")
    if variant not in ("without_replacement", "lucir"):
        raise ValueError(
            f"variant {variant!r}; wanted 'without_replacement' or 'lucir'"
        )
    unit = normalize(features, dim=1)
    mean = unit.mean(0)
    if variant == "lucir":
        return _with_repeats(unit, mean, n)
    picked = torch.empty(n, dtype=torch.long, device=features.device)
    used = torch.zeros(len(unit), dtype=torch.bool, device=features.device)
    total = torch.zeros_like(mean)
    for k in range(1, n + 1):
        gain = (unit @ (k * mean - total)).masked_fill(used, -torch.inf)
        best = gain.argmax()
        picked[k - 1] = best
        used[best] = True
        total += unit[best]
    return picked


def _with_repeats(unit: Tensor, mean: Tensor, n: int) -> Tensor:
    """LUCIR's own loop: repeats move the running vector and are not stored."""
    picked: dict[int, None] = {}
    running = mean.clone()
    for _ in range(1000):
        best = int((unit @ running).argmax())
        picked.setdefault(best)
        running = running + mean - unit[best]
        if len(picked) == n:
            break
    return torch.tensor(list(picked), device=unit.device)
