"""Cosine scores of features against class prototypes, and imprinted prototypes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def cosine_scores(features: Tensor, prototypes: Tensor) -> Tensor:
    r"""Cosine of the angle between each feature and each class prototype.

    .. math:: s_{bk} = \langle \bar f_b, \bar w_k \rangle, \qquad
        \bar v = v / \max(\lVert v \rVert_2, 10^{-12})

    Args:
        features: Backbone outputs :math:`f`, shape ``(B, D)``; any length, a row
            of zeros scores zero.
        prototypes: One row :math:`w_k` per class, shape ``(K, D)``.

    Returns:
        Scores, shape ``(B, K)``, unitless, each in ``[-1, 1]`` up to rounding.

    Raises:
        ValueError: If the two feature dimensions differ.

    Example:
        >>> cosine_scores(torch.tensor([[3.0, 0.0]]), torch.eye(2))
        tensor([[1., 0.]])

    References:
        Hou et al., CVPR 2019 (LUCIR), Eq. 4.
    """
    if features.shape[-1] != prototypes.shape[-1]:
        raise ValueError(
            f"features have {features.shape[-1]} dimensions, prototypes "
            f"{prototypes.shape[-1]}; wanted the same number"
        )
    return normalize(features, dim=-1) @ normalize(prototypes, dim=-1).T


def cosine_logits(
    features: Tensor, prototypes: Tensor, scale: Tensor | float
) -> Tensor:
    r"""Score each feature against each class prototype by angle alone.

    .. math:: z_{bk} = \eta \, \langle \bar f_b, \bar w_k \rangle

    Args:
        features: Backbone outputs :math:`f`, shape ``(B, D)``.
        prototypes: One row :math:`w_k` per class seen so far, shape ``(K, D)``.
        scale: Learned temperature :math:`\eta`; unitless, > 0 in practice.

    Returns:
        Logits, shape ``(B, K)``, each in ``[-scale, scale]``.

    Raises:
        ValueError: If the two feature dimensions differ.

    Example:
        >>> cosine_logits(torch.tensor([[3.0, 0.0]]), torch.eye(2), scale=2.0)
        tensor([[2., 0.]])

    References:
        Hou et al., CVPR 2019 (LUCIR), Eq. 4.
    """
    return scale * cosine_scores(features, prototypes)


def imprinted_prototypes(
    features: Tensor, targets: Tensor, n_classes: int, old_prototypes: Tensor
) -> Tensor:
    r"""First prototypes of new classes: the mean direction of their features.

    .. math:: w_c = \operatorname{unit}\Big(\tfrac{1}{N_c} \sum_{i: y_i = c}
        \bar f_i\Big) \cdot \tfrac{1}{K_o} \sum_k \lVert w_k \rVert_2

    Args:
        features: Features of the new classes' images, shape ``(N, D)``.
        targets: Their classes, int64 in ``0 .. n_classes - 1``, shape ``(N,)``.
        n_classes: Number of new classes.
        old_prototypes: Prototypes of the classes known before, shape ``(K_o, D)``,
            K_o > 0; only their mean length is used.

    Returns:
        Prototypes, shape ``(n_classes, D)``.

    Raises:
        ValueError: If there is no old prototype or a class has no image.

    Example:
        >>> x = torch.tensor([[4.0, 0.0], [0.0, 9.0]])
        >>> imprinted_prototypes(x, torch.tensor([0, 1]), 2, torch.eye(2) * 3)
        tensor([[3., 0.],
                [0., 3.]])

    References:
        Qi et al., CVPR 2018; used by the code of Hou et al., CVPR 2019 (LUCIR).
    """
    counts = torch.bincount(targets, minlength=n_classes)
    if len(old_prototypes) == 0 or bool((counts == 0).any()):
        raise ValueError(
            f"{len(old_prototypes)} old prototypes and {counts.tolist()} images a "
            "class; wanted at least one of each"
        )
    sums = features.new_zeros(n_classes, features.shape[1])
    sums.index_add_(0, targets, normalize(features, dim=1))
    length: Tensor = old_prototypes.norm(dim=1).mean()
    return normalize(sums / counts[:, None], dim=1) * length
