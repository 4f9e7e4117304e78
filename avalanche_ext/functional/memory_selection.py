"""Which points of an experience to keep."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Selection = Literal["random", "lambda", "lambda_ascending"]


def highest_scores(scores: Tensor, n: int) -> Tensor:
    """Points with the largest scores; with scores drawn uniformly, a random choice.

    Args:
        scores: Shape ``(N,)``.
        n: Points wanted, 0 to N.

    Returns:
        Their positions, int64, shape ``(n,)``, best first.

    Example:
        >>> highest_scores(torch.tensor([0.3, 0.9, 0.5]), 2)
        tensor([1, 2])
    """
    return scores.argsort(descending=True, stable=True)[:n]


def output_uncertainty(logits: Tensor) -> Tensor:
    r"""How much a point's outputs say about the weights: trace of the output's Hessian.

    .. math:: \sum_c h_c (1 - h_c), \qquad h = \mathrm{softmax}(f)

    Args:
        logits: f, shape ``(N, K)``.

    Returns:
        Shape ``(N,)``, in ``[0, 1 - 1/K]``.

    Example:
        >>> output_uncertainty(torch.tensor([[0.0, 0.0]]))
        tensor([0.5000])

    References:
        Pan et al., NeurIPS 2020 (FROMP): the lambda of its memorable points.
    """
    probabilities = logits.softmax(1)
    return (probabilities * (1 - probabilities)).sum(1)


def top_of_each_class(scores: Tensor, targets: Tensor, n: int) -> Tensor:
    """Points with the largest scores, as many of each class.

    Each of C classes gives its ``n // C`` best. What is left over, because C does not
    divide n or a class is small, goes to the best of all other points.

    Args:
        scores: Shape ``(N,)``.
        targets: Class ids, int64, shape ``(N,)``.
        n: Points wanted, 0 to N.

    Returns:
        Their positions, int64, shape ``(n,)``, best first; equal scores in the order
        of the points.

    Example:
        >>> scores = torch.tensor([0.9, 0.8, 0.1, 0.2])
        >>> top_of_each_class(scores, torch.tensor([0, 0, 1, 1]), 2)
        tensor([0, 3])
    """
    order = scores.argsort(descending=True, stable=True)
    classes, inverse = torch.unique(targets[order], return_inverse=True)
    if not len(classes):
        return order
    hits = inverse[:, None] == torch.arange(len(classes), device=inverse.device)
    place = hits.cumsum(0).gather(1, inverse[:, None]).squeeze(1)
    ahead = place <= n // len(classes)
    first = torch.cat([order[ahead], order[~ahead]])[:n]
    return order[torch.isin(order, first)]
