"""A prior in function space: losses of memorable points, and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

#: Roles of a sample in a mini-batch: new data, a point of the functional regulariser
#: (M1), a point that is replayed (M2).
NEW, FUNCTION, REPLAY = 0, 1, 2

#: What models give for a class that is not of a sample's head, as Avalanche's do.
MASKED = -1000.0


def tempered(logits: Tensor, temperature: Tensor | float) -> Tensor:
    """Logits over the temperature; a masked class stays masked.

    Args:
        logits: Shape ``(B, K)``.
        temperature: T > 0, a number or shape ``(B, 1)``.

    Returns:
        Shape ``(B, K)``.

    Example:
        >>> tempered(torch.tensor([[4.0, -1000.0]]), 2.0)
        tensor([[    2., -1000.]])
    """
    return torch.where(logits <= MASKED, logits, logits / temperature)


def soft_targets(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""What the functional regulariser holds a point to.

    .. math:: \hat y^T = \mathrm{softmax}(f_{w_t}(x) / T)

    Args:
        logits: Those of the model to remember, shape ``(M, K)``.
        temperature: T > 0.

    Returns:
        Shape ``(M, K)``, rows that sum to 1; exactly 0 for masked classes.

    Example:
        >>> soft_targets(torch.tensor([[0.0, 0.0, -1000.0]]), 2.0)
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    return tempered(logits, temperature).softmax(1)


def mixed_losses(
    logits: Tensor,
    targets: Tensor,
    roles: Tensor,
    soft: Tensor,
    *,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Loss of each sample of a batch of new data and memory, not weighted.

    .. math:: \ell(y, f) \text{ (new)}, \qquad \ell(\hat y, f/T) \text{ (M1)}, \qquad
        \ell(\hat y, f) + f^T (\hat y - y) = \ell(y, f) \text{ (M2)}

    The gradient of a point of M1 is :math:`J^T (h(f/T) - \hat y) / T`, with no factor
    :math:`T^2` to make up for it, 0 where the model is the one remembered. With label
    smoothing s each target u of a cross-entropy becomes :math:`(1 - s) u + s / C`, C
    the number of classes of the sample's head; the linear term of M2 stays as it is.

    Args:
        logits: :math:`f`, shape ``(B, K)``; `MASKED` where a class is not of the
            sample's head.
        targets: Class ids y, int64, shape ``(B,)``.
        roles: `NEW`, `FUNCTION` or `REPLAY`, shape ``(B,)``.
        soft: :math:`\hat y`, shape ``(B, K)``; unused for new data.
        temperature: T > 0.
        label_smoothing: s in ``[0, 1)``.

    Returns:
        Shape ``(B,)``.

    Example:
        >>> f, y = torch.tensor([[1.0, 0.0]]).expand(2, 2), torch.tensor([1, 1])
        >>> roles, soft = torch.tensor([NEW, REPLAY]), torch.full((2, 2), 0.5)
        >>> mixed_losses(f, y, roles, soft)
        tensor([1.3133, 1.3133])

    References:
        Daxberger et al., TMLR 2023; the three terms of its Figure 1.
    """
    role = roles[:, None]
    scaled = tempered(
        logits, torch.where(role == FUNCTION, temperature, 1.0).to(logits)
    )
    true = one_hot(targets, logits.shape[1]).to(logits)
    target = torch.where(role == FUNCTION, soft.to(logits), true)
    if label_smoothing:
        own = (logits > MASKED).to(logits)
        uniform = own / own.sum(1, keepdim=True)
        smoothed = torch.where(role == NEW, true, soft.to(logits))
        target = target + label_smoothing * (uniform - smoothed)
    # a product, not a sum of two terms: it is cross-entropy in all three roles
    return -(target * scaled.log_softmax(1)).sum(1)


def memory_weights(
    tau: float,
    tau2: float,
    memory_sizes: Sequence[int],
    data_sizes: Sequence[int] | None = None,
) -> list[float]:
    r""":math:`\tau_k` of each past experience.

    Args:
        tau: :math:`\tau_1`, of the first experience.
        tau2: Of all later ones.
        memory_sizes: m_k, points kept of each past experience.
        data_sizes: N_k, to let a memory stand for all data of its experience:
            :math:`\tau_k N_k / m_k`; None not to.

    Returns:
        One number an experience; 0 where nothing is kept and N_k is given.

    Raises:
        ValueError: If the sizes differ in number.

    Example:
        >>> memory_weights(0.5, 1.0, [10, 20], [100, 100])
        [5.0, 5.0]
    """
    taus = [tau2 if k else tau for k in range(len(memory_sizes))]
    if data_sizes is None:
        return taus
    if len(data_sizes) != len(memory_sizes):
        raise ValueError(
            f"{len(data_sizes)} sizes of data for {len(memory_sizes)} of memory; "
            "wanted as many"
        )
    sizes = zip(taus, memory_sizes, data_sizes, strict=True)
    return [each * n / m if m else 0.0 for each, m, n in sizes]


def strength_of(strengths: Sequence[float | None], experience: int) -> float:
    r""":math:`\lambda` while an experience is trained.

    Args:
        strengths: For the second experience, the third, ...; None repeats the one
            before, and so does the end of the list.
        experience: Number of the experience, >= 1 (the first has no past).

    Returns:
        The strength.

    Raises:
        ValueError: If the list begins with None or is empty.

    Example:
        >>> [strength_of([5.0, None, 2.0], k) for k in (1, 2, 3, 4)]
        [5.0, 5.0, 2.0, 2.0]
    """
    known = [s for s in strengths[: max(0, experience)] if s is not None]
    if not known:
        raise ValueError(
            f"strengths are {list(strengths)} and the experience {experience}; wanted a "
            "number first, and an experience from 1 on"
        )
    return known[-1]


def linear_pull(
    gradients: dict[str, Tensor], weights: dict[str, Tensor], start: dict[str, Tensor]
) -> Tensor:
    r"""A term with the same gradient everywhere.

    .. math:: \langle g, w - w_0 \rangle

    Args:
        gradients: g, by name.
        weights: w, by the same names.
        start: :math:`w_0`, by the same names.

    Returns:
        Scalar.
    """
    pulls = [
        (g.to(start[n]) * (weights[n] - start[n])).sum() for n, g in gradients.items()
    ]
    return torch.stack(pulls).sum()


def quadratic_penalty(weights: Tensor, anchor: Tensor, precision: Tensor) -> Tensor:
    r"""Energy of leaving the anchor.

    .. math:: \tfrac12 \sum_p h_p (w_p - a_p)^2

    Args:
        weights: w, shape ``(P,)``.
        anchor: a, shape ``(P,)``.
        precision: h >= 0, shape ``(P,)``: Fisher diagonal plus prior precision.

    Returns:
        Scalar.

    Example:
        >>> quadratic_penalty(torch.ones(2), torch.zeros(2), torch.tensor([2.0, 4.0]))
        tensor(3.)
    """
    away = weights - anchor
    return 0.5 * (precision * away).dot(away)


class ReconstructionError(NamedTuple):
    """How far a prior's gradient is from that of the past."""

    absolute: float
    """Norm of the difference."""
    relative: float
    """The same over the norm of the past's gradient; nan if that is 0."""
    cosine: float
    """Of the angle between the two; nan if one is 0."""


def reconstruction_error(past: Tensor, prior: Tensor) -> ReconstructionError:
    r"""Compare the gradient of the past with what a prior makes of it.

    .. math:: e = \nabla L_{past}(w) - \nabla K(w)

    Args:
        past: Gradient of the summed loss of all past data, shape ``(P,)``.
        prior: Gradient of the prior on the same scale, shape ``(P,)``.

    Returns:
        :math:`\lVert e \rVert_2`, its ratio to the past's norm, and the cosine.

    Example:
        >>> reconstruction_error(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 4.0]))
        ReconstructionError(absolute=3.0, relative=0.6, cosine=0.8)
    """
    past, prior = past.double(), prior.double()
    sizes = torch.stack([(past - prior).norm(), past.norm(), prior.norm()])
    error, n_past, n_prior = sizes.tolist()
    nan = float("nan")
    product = float(past @ prior)
    return ReconstructionError(
        error,
        error / n_past if n_past else nan,
        product / (n_past * n_prior) if n_past and n_prior else nan,
    )
