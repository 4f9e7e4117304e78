"""Distillation of feature directions, and how strongly it counts."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import mse_loss, normalize

WeightMode = Literal["old_over_new", "new_over_old", "fixed"]


def less_forget_loss(features: Tensor, reference_features: Tensor) -> Tensor:
    r"""Mean angle distance between the features of two models.

    .. math:: L = \frac{1}{B} \sum_b \big(1 - \langle \bar f_b, \bar f^*_b \rangle\big)

    Args:
        features: Features :math:`f` of the model in training, shape ``(B, D)``.
        reference_features: Features :math:`f^*` of the frozen previous model for
            the same inputs, shape ``(B, D)``.

    Returns:
        Scalar in ``[0, 2]``; 0 if all directions agree.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> less_forget_loss(x, torch.tensor([[5.0, 0.0], [0.0, -1.0]]))
        tensor(1.)

    References:
        Hou et al., CVPR 2019 (LUCIR), Eq. 6.
    """
    if features.shape != reference_features.shape:
        raise ValueError(
            f"reference features of shape {tuple(reference_features.shape)}; "
            f"wanted {tuple(features.shape)}"
        )
    cosine = (normalize(features, dim=1) * normalize(reference_features, dim=1)).sum(1)
    return (1 - cosine).mean()


def mimic_scores_loss(scores: Tensor, reference_scores: Tensor) -> Tensor:
    r"""Ablation of the less-forget term: keep the old classes' scores instead.

    .. math:: L = K_o \cdot \frac{1}{B K_o} \sum_{b,k} (s_{bk} - s^*_{bk})^2

    Args:
        scores: Cosine scores of the old classes, shape ``(B, K_o)``.
        reference_scores: The same of the frozen previous model, ``(B, K_o)``.

    Returns:
        Scalar >= 0.

    Example:
        >>> import torch
        >>> mimic_scores_loss(torch.ones(1, 2), torch.zeros(1, 2))
        tensor(2.)

    References:
        Code of Hou et al., CVPR 2019 (LUCIR), class-incremental "mimic score".
    """
    return mse_loss(scores, reference_scores) * scores.shape[1]


def adaptive_distillation_weight(
    base: float, n_old: int, n_new: int, mode: WeightMode = "old_over_new"
) -> float:
    r"""Weight of the less-forget term by the number of old and new classes.

    .. math:: \lambda = \lambda_{base} \sqrt{K_o / K_n}

    The paper prints the inverse ratio; its code, every descendant of it and all
    published numbers use the one above.

    Args:
        base: :math:`\lambda_{base}` >= 0; 5 for CIFAR-100, 10 for ImageNet.
        n_old: Classes of earlier experiences :math:`K_o`, > 0.
        n_new: Classes first seen in this experience :math:`K_n`, > 0.
        mode: ``"old_over_new"`` (the authors' code), ``"new_over_old"`` (the
            paper's text) or ``"fixed"`` (:math:`\lambda = \lambda_{base}`).

    Returns:
        The weight, >= 0.

    Raises:
        ValueError: If a count is not positive or the mode is unknown.

    Example:
        >>> round(adaptive_distillation_weight(5.0, n_old=50, n_new=10), 2)
        11.18

    References:
        Hou et al., CVPR 2019 (LUCIR), section 3.3 and its code.
    """
    if n_old <= 0 or n_new <= 0:
        raise ValueError(f"{n_old} old and {n_new} new classes; wanted at least 1 each")
    if mode == "old_over_new":
        return base * float((n_old / n_new) ** 0.5)
    if mode == "new_over_old":
        return base * float((n_new / n_old) ** 0.5)
    if mode == "fixed":
        return base
    raise ValueError(f"mode {mode!r}; wanted 'old_over_new', 'new_over_old' or 'fixed'")
