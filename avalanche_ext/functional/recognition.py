"""Recognising the experience of a sample from the relevance of units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from avalanche_ext._checks import require_choice

Table = Literal["balanced", "code"]


def experience_probabilities(in_probabilities: Tensor) -> Tensor:
    r"""Probability of each experience from detectors asked one after the other.

    .. math:: P_i = p_i \prod_{j < i} (1 - p_j), \qquad P_{T-1} = \prod_{j < T-1} (1 - p_j)

    Detector i says how likely a sample is of experience i rather than of a later one,
    and the last experience needs none: with one experience the answer is 1.

    Args:
        in_probabilities: p, ``(N, T - 1)``, in ``[0, 1]``.

    Returns:
        P, ``(N, T)``, in ``[0, 1]``; each row sums to 1.

    Raises:
        ValueError: If p has another shape or range.

    Example:
        >>> experience_probabilities(torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
        tensor([[0.5000, 0.2500, 0.2500],
                [0.0000, 1.0000, 0.0000]])

    References:
        Bogacka et al., 2025 (ReReLRP): its code; the figure has P_1 = p_1 (1 - p_2).
    """
    p = in_probabilities
    if p.dim() != 2:
        raise ValueError(
            f"in_probabilities are of shape {tuple(p.shape)}; wanted (N, T - 1)"
        )
    # written so that nan is refused too
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"in_probabilities are in [{float(p.min())}, {float(p.max())}]; "
            "wanted [0, 1]"
        )
    one = p.new_ones(len(p), 1)
    return torch.cat([p, one], 1) * torch.cat([one, (1 - p).cumprod(1)], 1)


def informative_features(rows: Tensor, n: int) -> Tensor:
    """Features that are largest on an experience's own samples.

    Args:
        rows: Normalised relevance of all units on samples of the experience, ``(N, F)``,
            N > 0.
        n: Features wanted, 1 to F.

    Returns:
        Their numbers, int64, ``(n,)``, by ascending mean.

    Raises:
        ValueError: If ``rows`` has another shape or ``n`` is out of its range.

    Example:
        >>> informative_features(torch.tensor([[0.5, -0.9, 0.1], [0.3, 0.0, 0.7]]), 2)
        tensor([0, 2])
    """
    if rows.dim() != 2 or not len(rows):
        raise ValueError(f"rows are of shape {tuple(rows.shape)}; wanted (N, F), N > 0")
    if not 1 <= n <= rows.shape[1]:
        raise ValueError(f"n is {n!r}; wanted 1 to {rows.shape[1]}, all features")
    return rows.mean(0).argsort(stable=True)[-n:]


def detector_table(
    rows: Sequence[Tensor],
    classes: Sequence[Tensor],
    *,
    table: Table = "balanced",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Training data of the detector of one experience against all later ones.

    Every experience gives as many rows as the shortest has. They come interleaved: the
    first of every experience, then the second, and so on.

    Args:
        rows: Features of the samples of experience m, m + 1, ..., each ``(N_k, S)``; at
            least two experiences.
        classes: Class of each row, int64, ``(N_k,)``.
        table: ``"balanced"``: rows are drawn without replacement, evenly over an
            experience's classes (a class with too few gives all it has). ``"code"``: as
            published, the first rows: where they are sorted by class and experiences
            differ in size, whole classes are lost.
        generator: Of the draw, on the CPU; None: torch's own.

    Returns:
        X, ``(E * min N_k, S)``, and y, int64: 0 for experience m and 1 for later ones.

    Raises:
        ValueError: If there are fewer than two experiences, no rows, or shapes differ.

    Example:
        >>> rows = [torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[4.0], [5.0]])]
        >>> classes = [torch.tensor([0, 0, 1]), torch.tensor([2, 3])]
        >>> x, y = detector_table(rows, classes, table="code")
        >>> x.T, y
        (tensor([[1., 4., 2., 5.]]), tensor([0, 1, 0, 1]))

    References:
        Bogacka et al., 2025 (ReReLRP).
    """
    require_choice(("balanced", "code"), table=table)
    _require_table(rows, classes)
    n = min(len(part) for part in rows)
    if table == "balanced":
        parts = [
            part[_even_draw(ids, n, generator).to(part.device)]
            for part, ids in zip(rows, classes, strict=True)
        ]
    else:
        parts = [part[:n] for part in rows]
    y = torch.ones(len(rows), dtype=torch.long, device=rows[0].device)
    y[0] = 0
    return torch.stack(parts, 1).flatten(0, 1), y.repeat(n)


def _even_draw(classes: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Numbers of n rows, on the CPU: one of each class, a second of each, and so on."""
    order = torch.randperm(len(classes), generator=generator)
    number = torch.unique(classes.cpu()[order], return_inverse=True)[1]
    nth_of_class = one_hot(number).cumsum(0).gather(1, number[:, None])[:, 0]
    return order[nth_of_class.argsort(stable=True)[:n]]


def _require_table(rows: Sequence[Tensor], classes: Sequence[Tensor]) -> None:
    if len(rows) < 2:
        raise ValueError(f"rows are of {len(rows)} experiences; wanted at least 2")
    lengths = [len(part) for part in rows]
    if not all(lengths):
        raise ValueError(f"rows are {lengths} long; wanted at least 1 each")
    if [len(ids) for ids in classes] != lengths:
        raise ValueError(
            f"classes are {[len(ids) for ids in classes]} long; wanted {lengths}, "
            "as the rows"
        )
    widths = sorted({tuple(part.shape[1:]) for part in rows})
    if len(widths) > 1 or len(widths[0]) != 1:
        raise ValueError(f"features are of shapes {widths}; wanted one (S,)")
