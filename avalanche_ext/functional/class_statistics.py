"""Size, centre and spread of classes, from batches and over processes.

Everything is float64 on the device of the features, and nothing waits for that device.
K classes are numbered 0 .. K-1 (their *positions*).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class ClassStatistics(NamedTuple):
    r"""Size, centre and spread of each class in a set of features.

    Attributes:
        counts: :math:`n`, float64, shape ``(K,)``.
        means: :math:`\mu`, ``(K, D)``; 0 for a class without samples.
        dispersions: :math:`D_c = \frac{1}{n_c} \sum \|f - \mu_c\|^2`, ``(K,)``; 0 for
            a class with less than two samples.
    """

    counts: Tensor
    means: Tensor
    dispersions: Tensor


def class_statistics(
    features: Tensor, positions: Tensor, n_classes: int
) -> ClassStatistics:
    """Statistics of the classes in a batch.

    Args:
        features: :math:`f`, any floating type, shape ``(B, D)``.
        positions: Class of each row, int64 in ``[0, K)``, shape ``(B,)``.
        n_classes: K.

    Returns:
        The statistics; they have no gradient.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 3.0], [5.0, 5.0]])
        >>> class_statistics(x, torch.tensor([0, 0, 1]), n_classes=2).dispersions
        tensor([1., 0.], dtype=torch.float64)
    """
    f = features.detach().double()
    counts = f.new_zeros(n_classes).index_add_(0, positions, f.new_ones(len(f)))
    sums = f.new_zeros(n_classes, f.shape[1]).index_add_(0, positions, f)
    divisor = counts.clamp_min(1)
    means = sums / divisor[:, None]
    # never E|f|^2 - |mu|^2, which cancels
    squares = means.index_select(0, positions).sub_(f).square_().sum(1)
    dispersions = f.new_zeros(n_classes).index_add_(0, positions, squares) / divisor
    return ClassStatistics(counts, means, dispersions)


def merge_statistics(a: ClassStatistics, b: ClassStatistics) -> ClassStatistics:
    """Statistics of two sets together, without their features.

    Args:
        a: Of one set.
        b: Of another set, of the same classes.

    Returns:
        Of both.

    References:
        Chan, Golub and LeVeque, The American Statistician 37, 1983.
    """
    counts = a.counts + b.counts
    share = b.counts / counts.clamp_min(1)
    gap = b.means - a.means
    means = a.means + share[:, None] * gap
    between = share * (1 - share) * gap.square().sum(1)
    within = (1 - share) * a.dispersions + share * b.dispersions
    return ClassStatistics(counts, means, within + between)


def sum_statistics(
    own: ClassStatistics, total: Callable[[Tensor], Tensor]
) -> ClassStatistics:
    """Statistics over all processes.

    Args:
        own: Of this process.
        total: Sum of a tensor over the processes.

    Returns:
        The same on every process, if ``total`` is.
    """
    counts = total(own.counts)
    divisor = counts.clamp_min(1)
    means = total(own.counts[:, None] * own.means) / divisor[:, None]
    squares = own.dispersions + (own.means - means).square().sum(1)
    return ClassStatistics(counts, means, total(own.counts * squares) / divisor)


def is_finite(statistics: ClassStatistics) -> Tensor:
    """Classes without nan or infinity in their features.

    Args:
        statistics: Of K classes.

    Returns:
        bool, ``(K,)``; True for classes without samples.
    """
    # such a feature is nan or infinite away from its mean too, also if it is alone
    return statistics.dispersions.isfinite()
