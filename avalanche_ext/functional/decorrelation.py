"""Class-wise decorrelation of features (CwD)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from avalanche_ext._checks import require_choice, require_positive, require_whole
from avalanche_ext.functional.precision import at_least_float32

Normalization = Literal["code", "paper"]

#: Up to so many images a feature, one product of all pairs is faster than a loop over
#: the classes.
_PAIRS_UP_TO = 16


def decorrelation_loss(
    features: Tensor,
    targets: Tensor,
    *,
    normalization: Normalization = "code",
    reject_threshold: int = 1,
    eps: float = 1e-8,
) -> Tensor:
    r"""Mean squared correlation between the features of one class.

    With :math:`q` the features standardised within their class (unbiased variance,
    to which ``eps`` is added) and :math:`M_c = q_c^\top q_c`, over the classes kept:

    .. math:: L_{code} = \frac{\sum_c \sum_{i \ne j} M_{c,ij}^2}
        {D (D - 1) \sum_c N_c}, \qquad
        L_{paper} = \frac{1}{C D^2} \sum_c \Big\| \frac{M_c}{N_c - 1} \Big\|_F^2

    The features are taken as they are; the method normalises their rows first. A class
    with two images only contributes a constant.

    As :math:`\|q^\top q\|_F = \|q q^\top\|_F`, no :math:`D \times D` matrix is made
    where a class has fewer images than features. Computed in float32 at least.

    Args:
        features: :math:`f`, shape ``(B, D)``, D >= 2.
        targets: Class of each row, any integers, shape ``(B,)``.
        normalization: ``"code"`` as published, to which the published coefficients
            belong; ``"paper"`` as printed.
        reject_threshold: Classes with so many images or fewer are left out; >= 1.
        eps: Added to each variance, > 0: features may be constant.

    Returns:
        Scalar >= 0; 0, and still part of the graph, if no class is kept.

    Raises:
        ValueError: If a shape or an argument is out of its range.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0]])
        >>> alike, apart = torch.tensor([0, 0, 1, 1]), torch.zeros(4)
        >>> decorrelation_loss(x, alike), decorrelation_loss(x, apart)
        (tensor(0.5000), tensor(0.))

    References:
        Shi et al., Mimicking the Oracle, CVPR 2022 (CwD), Eq. 8; code Yujun-Shi/CwD.
    """
    require_choice(("code", "paper"), normalization=normalization)
    require_whole(1, reject_threshold=reject_threshold)
    require_positive(eps=eps)
    if features.ndim != 2 or features.shape[1] < 2:
        shape = tuple(features.shape)
        raise ValueError(f"features of shape {shape}; wanted (B, D) with D >= 2")
    if targets.shape != features.shape[:1]:
        shape = tuple(targets.shape)
        raise ValueError(f"targets of shape {shape}; wanted ({len(features)},)")
    features = at_least_float32(features)
    n, d = features.shape
    paper = normalization == "paper"
    with torch.autocast(features.device.type, enabled=False):
        count = (targets[:, None] == targets).sum(1).to(features.dtype)
        kept = count > reject_threshold
        weight = kept / (count - 1).clamp_min(1).square() if paper else kept.to(count)
        square_sum = _by_pairs if n <= _PAIRS_UP_TO * d else _by_classes
        total = square_sum(features, targets, weight, count, eps, diagonal=paper)
        # number of classes kept, or of their images
        n_kept = ((kept / count) if paper else kept).sum()
        return total / (n_kept.clamp_min(1) * (d * d if paper else d * (d - 1)))


def _by_pairs(
    features: Tensor,
    targets: Tensor,
    weight: Tensor,
    count: Tensor,
    eps: float,
    diagonal: bool,
) -> Tensor:
    """Weighted sum of the squares in all M, from the inner products of images.

    Sums over a class are products with ``same``: nothing waits for the device.
    """
    same = (targets[:, None] == targets).to(features.dtype)
    # rejected classes must not have a gradient, not even one of nan * 0
    features = features.masked_fill(weight[:, None] == 0, 0)
    centred = features - same @ features / count[:, None]
    variance = same @ centred.square() / (count - 1).clamp_min(1)[:, None]
    q = centred / (variance + eps).sqrt()
    squares = ((q @ q.T).square() * same).sum(1)
    if not diagonal:
        squares = squares - (q.square() * (same @ q.square())).sum(1)
    return (weight * squares).sum()


def _by_classes(
    features: Tensor,
    targets: Tensor,
    weight: Tensor,
    count: Tensor,
    eps: float,
    diagonal: bool,
) -> Tensor:
    """The same, one class after the other, from the smaller of the two products."""
    total = features[weight > 0].sum() * 0  # a rejected class may hold nan
    for label in torch.unique(targets[weight > 0]):
        rows = targets == label
        f = features[rows]
        centred = f - f.mean(0)
        variance = centred.square().sum(0) / max(1, len(f) - 1)
        q = centred / (variance + eps).sqrt()
        product = q @ q.T if len(f) < f.shape[1] else q.T @ q
        squares = product.square().sum()
        if not diagonal:
            squares = squares - q.square().sum(0).square().sum()
        total = total + weight[rows][0] * squares
    return total
