r"""Synaptic Intelligence: what each weight contributed to the fall of the loss.

P weights :math:`\theta` in one vector; :math:`\theta_0` are those an experience
started with, and :math:`g` gradients of the loss.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Trajectory = Literal["gradient", "update"]


def path_integral(
    trajectory: Tensor, moved: Tensor, gradient: Tensor | None = None
) -> Tensor:
    r"""Fall of the loss along the path, after one more step.

    .. math:: \tau \leftarrow \tau + g \odot \Delta, \qquad
        \Delta = \theta_{new} - \theta_{old}

    Without a gradient :math:`-\Delta` takes its place, so that the path integral is
    :math:`-\sum \Delta^2`: what the authors' Caffe code computes, which reads the
    gradient when the solver has already turned it into the update. The gradient of
    the loss and the update of an optimizer with momentum may have the same sign, and
    :math:`\tau` then grows.

    Args:
        trajectory: :math:`\tau`, shape ``(P,)``.
        moved: :math:`\Delta`, shape ``(P,)``.
        gradient: g before the step, shape ``(P,)``; None: the update.

    Returns:
        The new :math:`\tau`, shape ``(P,)``.

    Example:
        >>> path_integral(torch.zeros(2), torch.tensor([-0.5, 0.5]), torch.ones(2))
        tensor([-0.5000,  0.5000])
    """
    return torch.addcmul(trajectory, -moved if gradient is None else gradient, moved)


def accumulated_trajectory(
    cumulative: Tensor,
    trajectory: Tensor,
    moved: Tensor,
    *,
    scale: float = 1.0,
    damping: float = 1e-7,
) -> Tensor:
    r"""Contribution of each weight over all experiences, after one more.

    .. math:: \Sigma \leftarrow \Sigma + c \, \frac{\tau}{(\theta - \theta_0)^2 + \xi}

    Args:
        cumulative: :math:`\Sigma`, shape ``(P,)``.
        trajectory: :math:`\tau` of the experience, shape ``(P,)``.
        moved: :math:`\theta - \theta_0` over the experience, shape ``(P,)``.
        scale: c >= 0.
        damping: :math:`\xi` > 0.

    Returns:
        The new :math:`\Sigma`, shape ``(P,)``; mostly below 0.

    Example:
        >>> tau, moved = torch.tensor([-2.0]), torch.tensor([-1.0])
        >>> accumulated_trajectory(torch.zeros(1), tau, moved, damping=1.0)
        tensor([-1.])
    """
    return cumulative + scale * trajectory / (moved.square() + damping)


def weight_importance(
    cumulative: Tensor,
    *,
    max_importance: float = 1e-3,
    min_importance: float | None = 0.0,
) -> Tensor:
    r"""Importance of each weight for what has been learned.

    .. math:: F = \min(\max(-\Sigma, F_{min}), F_{max})

    Args:
        cumulative: :math:`\Sigma`, shape ``(P,)``.
        max_importance: :math:`F_{max}` > 0.
        min_importance: :math:`F_{min}`; None for no lower bound, as in the published
            PyTorch code: a penalty with F < 0 has no minimum.

    Returns:
        F, shape ``(P,)``.

    Example:
        >>> weight_importance(torch.tensor([-1.0, -2e-4, 3.0]))
        tensor([0.0010, 0.0002, 0.0000])
    """
    return (-cumulative).clamp(min_importance, max_importance)


def modulated_gradient(
    gradient: Tensor,
    weights: Tensor,
    brake: Tensor,
    weight_decay: Tensor | float = 0.0,
) -> Tensor:
    r"""Gradient with which SGD takes smaller steps for important weights.

    .. math:: g' = (g + \omega \theta)(1 - b) - \omega \theta, \qquad b = F / F_{max}

    SGD adds the weight decay :math:`\omega \theta` itself, before its momentum, so
    that all of it is braked; where b is 1, nothing is left.

    Args:
        gradient: g, shape ``(P,)``.
        weights: :math:`\theta`, shape ``(P,)``.
        brake: b in ``[0, 1]``, shape ``(P,)``.
        weight_decay: :math:`\omega` >= 0, a number or shape ``(P,)``.

    Returns:
        :math:`g'`, shape ``(P,)``.

    Example:
        >>> g, theta = torch.ones(3), torch.full((3,), 2.0)
        >>> modulated_gradient(g, theta, torch.tensor([0.0, 0.5, 1.0]), 0.5)
        tensor([ 1.,  0., -1.])
    """
    # the same as the formula, and exact at both ends
    return torch.lerp(gradient, -weight_decay * weights, brake)
