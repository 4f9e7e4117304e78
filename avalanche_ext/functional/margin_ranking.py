"""Margin between an old class and the new classes it is mistaken for."""

from __future__ import annotations

from torch import Tensor


def margin_ranking_loss(
    scores: Tensor,
    targets: Tensor,
    n_old: int,
    margin: float = 0.5,
    n_negatives: int = 2,
) -> Tensor:
    r"""Push old-class samples away from the new classes they resemble most.

    .. math:: L = \frac{1}{|O| K'} \sum_{b \in O} \sum_{k \le K'}
        \max\big(0,\, m - s_{b,y_b} + s_{b,(k)}\big)

    :math:`O` are the samples of the batch whose class is old, :math:`s_{b,(k)}`
    the k-th largest score among the new classes, :math:`K' = \min(K, K_n)`.

    Args:
        scores: Unscaled cosine scores, shape ``(B, K_o + K_n)``, old classes first.
        targets: Column of each sample's class, int64, shape ``(B,)``.
        n_old: Number of old classes :math:`K_o`.
        margin: :math:`m`, in units of the cosine, usually in ``[0, 2]``.
        n_negatives: :math:`K`, hardest new classes per sample, >= 1.

    Returns:
        Scalar >= 0; 0, and still part of the graph, if the batch has no old
        sample, no class is new or none is old.

    Raises:
        ValueError: If ``n_negatives`` < 1.

    Example:
        >>> import torch
        >>> s = torch.tensor([[0.9, 0.2, 0.6], [0.1, 0.8, 0.3]])
        >>> print(f"{margin_ranking_loss(s, torch.tensor([0, 1]), n_old=1).item():.2f}")
        0.10

    References:
        Hou et al., CVPR 2019 (LUCIR), Eq. 8.
    """
    if n_negatives < 1:
        raise ValueError(f"n_negatives is {n_negatives}; wanted at least 1")
    new_scores = scores[:, n_old:]
    n_hard = min(n_negatives, new_scores.shape[1])
    if n_hard == 0:
        return scores.sum() * 0
    own = scores.gather(1, targets[:, None])
    hard = new_scores.topk(n_hard, dim=1).values
    hinge = (margin - own + hard).clamp_min(0).sum(1)
    # A mask instead of indexing: the number of old samples stays on the device.
    old = (targets < n_old).to(scores.dtype)
    return (hinge * old).sum() / (old.sum() * n_hard).clamp_min(1)
