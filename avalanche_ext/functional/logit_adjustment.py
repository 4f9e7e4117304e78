"""Class priors of balanced destruction-reconstruction (BDR), and their running update.

Everything is float64 on the device of the features, and nothing waits for that device.
K classes are numbered 0 .. K-1 (their *positions*).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from avalanche_ext._checks import require_choice, require_fraction, require_real
from avalanche_ext.functional.class_statistics import ClassStatistics, is_finite

DispersionWeights = Literal["per_class", "last_class"]
Absent = Literal["mask", "ignore"]

#: Added to a prior before its logarithm: a class without any has -27.63.
TINY = 1e-12


class LogitAdjustment(NamedTuple):
    r"""State of BDR within an experience.

    Attributes:
        counts: :math:`n`, samples of the training data, ``(K,)``; stays.
        means: :math:`\mu`, running, ``(K, D)``.
        dispersions: :math:`D`, running, ``(K,)``; 0 while there is none to be had.
        prior: :math:`\psi = n / \sum n`, ``(K,)``; stays.
        offsets: :math:`\pi`, to be added to the logits in training, ``(K,)``.
        seen: Whether the class has been met, bool, ``(K,)``.
    """

    counts: Tensor
    means: Tensor
    dispersions: Tensor
    prior: Tensor
    offsets: Tensor
    seen: Tensor


def compactness(dispersions: Tensor, seen: Tensor) -> Tensor:
    r"""Share of each class in the total compactness.

    .. math:: \omega_c = \frac{1 / D_c}{\sum_k 1 / D_k}

    A class whose features are compact counts as well trained. One without a dispersion
    above 1e-12 (a single exemplar) gets the mean of the others' :math:`1 / D`.

    Args:
        dispersions: :math:`D`, ``(K,)``.
        seen: Classes that take part, bool, ``(K,)``.

    Returns:
        :math:`\omega`, ``(K,)``, with sum 1; 0 for classes that take no part.

    Example:
        >>> compactness(torch.tensor([1.0, 3.0, 0.0]), torch.tensor([True, True, False]))
        tensor([0.7500, 0.2500, 0.0000])
    """
    usable = seen & (dispersions > TINY)
    inverse = torch.where(usable, 1 / dispersions.clamp_min(TINY), 0)
    n_usable = usable.sum()
    neutral = torch.where(n_usable > 0, inverse.sum() / n_usable.clamp_min(1), 1)
    inverse = torch.where(seen & ~usable, neutral, inverse)
    return inverse / inverse.sum().clamp_min(TINY)


def log_prior(
    prior: Tensor,
    dispersions: Tensor,
    seen: Tensor,
    *,
    m: float,
    tro: float = 1.0,
    absent: Absent = "mask",
) -> Tensor:
    r"""Offsets of the logits from class frequency and compactness.

    .. math:: \pi = \log\big( (m \, \psi + (1 - m) \, \omega)^{tro} + 10^{-12} \big)

    Args:
        prior: :math:`\psi`, ``(K,)``.
        dispersions: :math:`D`, ``(K,)``.
        seen: Classes that have been met, bool, ``(K,)``.
        m: Weight of the frequency in ``[0, 1]``; 1 and ``tro`` 1 give balanced softmax.
        tro: Exponent, >= 0.
        absent: What classes not met get: ``"mask"``, :math:`\log 10^{-12} = -27.6`,
            which takes them out of the softmax (unless their logit is as much above
            the others), or ``"ignore"``, 0.

    Returns:
        :math:`\pi`, ``(K,)``.

    Raises:
        ValueError: If an argument is out of its range.
    """
    require_fraction(m=m)
    require_real(0, tro=tro)
    require_choice(("mask", "ignore"), absent=absent)
    mixed = (m * prior + (1 - m) * compactness(dispersions, seen)) ** tro
    return torch.where(seen, (mixed + TINY).log(), absent_offset(absent))


def absent_offset(absent: Absent) -> float:
    """Offset of a class that has not been met.

    Args:
        absent: As in `log_prior`.

    Returns:
        The offset, in nats.

    Example:
        >>> round(absent_offset("mask"), 2), absent_offset("ignore")
        (-27.63, 0.0)
    """
    return math.log(TINY) if absent == "mask" else 0.0


def start_adjustment(
    data: ClassStatistics,
    prior: Tensor | None = None,
    *,
    m: float = 0.8,
    tro: float = 1.0,
    absent: Absent = "mask",
) -> LogitAdjustment:
    """State at the start of an experience after the first.

    Args:
        data: Statistics of the experience's training data, exemplars included.
        prior: Samples of each class, ``(K,)``, where they are not ``data.counts``.
        m: The authors' m1, see `log_prior`.
        tro: See `log_prior`.
        absent: See `log_prior`.

    Returns:
        The state.
    """
    counts = data.counts if prior is None else prior.to(data.counts)
    psi = counts / counts.sum()
    seen = counts > 0
    offsets = log_prior(psi, data.dispersions, seen, m=m, tro=tro, absent=absent)
    return LogitAdjustment(*data, psi, offsets, seen)


def update_adjustment(
    state: LogitAdjustment,
    batch: ClassStatistics,
    *,
    m: float = 0.8,
    momentum: float = 0.99,
    tro: float = 1.0,
    absent: Absent = "mask",
    last: Tensor | None = None,
) -> LogitAdjustment:
    r"""State after a batch, to be taken before that batch's loss.

    For the classes in the batch, with :math:`w_c = b_c / (n_c + b_c)`, their batch mean
    :math:`\bar f_c` and their mean squared distance :math:`d_c` from the *new* mean:

    .. math:: \mu_c \leftarrow (1 - w_c) \mu_c + w_c \bar f_c, \qquad
        D_c \leftarrow (1 - w_c) D_c + w_c d_c \ \text{ if } b_c > 1

    .. math:: \pi \leftarrow momentum \cdot \pi + (1 - momentum) \cdot \hat\pi

    with :math:`\hat\pi` of `log_prior`. A class without a dispersion takes its first
    one as it is. Classes whose features are not finite are left as they were.

    Args:
        state: State before the batch.
        batch: Statistics of the batch.
        m: The authors' m2, see `log_prior`.
        momentum: Of :math:`\pi`, in ``[0, 1]``.
        tro: See `log_prior`.
        absent: See `log_prior`.
        last: Position whose :math:`w` all dispersions use, as `last_class` gives it: a
            slip of the published code. None: each its own.

    Returns:
        The new state; the given one is not changed.
    """
    finite = is_finite(batch)
    b = torch.where(finite, batch.counts, 0)
    w = b / (state.counts + b).clamp_min(1)
    gap = batch.means - state.means
    means = torch.addcmul(state.means, w[:, None], gap)
    means = torch.where(finite[:, None], means, state.means)
    # about the new mean: the distance between the two means is (1 - w) * gap
    d = batch.dispersions + (1 - w).square() * gap.square().sum(1)
    wd = w if last is None else w[last]
    old = state.dispersions
    mixed = torch.where(old > TINY, (1 - wd) * old + wd * d, d)
    dispersions = torch.where(b > 1, mixed, old)
    seen = state.seen | (b > 0)
    hat = log_prior(state.prior, dispersions, seen, m=m, tro=tro, absent=absent)
    offsets = momentum * state.offsets + (1 - momentum) * hat
    return LogitAdjustment(state.counts, means, dispersions, state.prior, offsets, seen)


def last_class(positions: Tensor, n_classes: int) -> Tensor:
    """The class whose first row comes last in a batch.

    Args:
        positions: Class of each row, int64, shape ``(B,)``, B > 0.
        n_classes: K.

    Returns:
        Its position, a scalar int64 tensor.

    Example:
        >>> last_class(torch.tensor([2, 0, 1, 0, 2]), n_classes=4)
        tensor(1)
    """
    rows = torch.arange(len(positions), device=positions.device)
    first = rows.new_full((n_classes,), -1)
    first = first.scatter_reduce(0, positions, rows, "amin", include_self=False)
    return first.argmax()
