"""CwD and BDR written again, slowly, as the published code has them.

What is fast is compared with these: for its values by the tests, for its speed by
``scripts/timing.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def decorrelated_slowly(
    features: Tensor,
    targets: Tensor,
    normalization: str = "code",
    threshold: int = 1,
    eps: float = 1e-8,
) -> Tensor:
    """CwD with a D x D matrix for each class."""
    d, total, n_images, n_classes = features.shape[1], 0, 0, 0
    for label in targets.unique():
        z = features[targets == label]
        n = len(z)
        if n <= threshold:
            continue
        q = (z - z.mean(0)) / (eps + z.var(0)).sqrt()
        m = q.T @ q
        if normalization == "paper":
            total = total + (m / (n - 1)).square().sum() / d**2
        else:
            off = m - m.diag().diag()
            total = total + off.square().sum() / (d * (d - 1))
        n_images, n_classes = n_images + n, n_classes + 1
    if not n_classes:
        return features.sum() * 0
    return total / (n_classes if normalization == "paper" else n_images)


def updated_slowly(
    state: tuple[Tensor, ...],
    features: Tensor,
    positions: Tensor,
    *,
    m: float,
    momentum: float,
    tro: float = 1.0,
    leak: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One update of BDR, example by example: means, dispersions, offsets.

    With ``leak`` the dispersions take the weight that the loop before left behind.
    """
    n, mu, disp, psi, pi = (t.clone() for t in state[:5])
    means, count = {}, {}
    for f, p in zip(features.double(), positions.tolist()):
        count[p] = count.get(p, 0) + 1
        means[p] = means.get(p, 0) + f
    for p, b in count.items():
        w = b / (n[p] + b)
        mu[p] = (1 - w) * mu[p] + w * means[p] / b
    squares = dict.fromkeys(count, 0.0)
    for f, p in zip(features.double(), positions.tolist()):
        squares[p] = squares[p] + (f - mu[p]).square().sum()
    for p, b in count.items():
        if b > 1:
            used = list(count)[-1] if leak else p
            w = count[used] / (n[used] + count[used])
            disp[p] = (1 - w) * disp[p] + w * squares[p] / b
    omega = (1 / disp) / (1 / disp).sum()
    hat = torch.log((m * psi + (1 - m) * omega) ** tro + 1e-12)
    return mu, disp, momentum * pi + (1 - momentum) * hat
