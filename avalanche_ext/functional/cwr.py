r"""Rows of a classifier that are trained from zero and merged with their past (CWR*).

K classes with one row of D weights each. A class has a past if its ``past`` count is
above 0, and takes part in an experience if its ``current`` count is (the set J).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from avalanche_ext._checks import require_choice

Repeat = Literal["once", "per_pattern"]


def class_counts(labels: Tensor, n_classes: int) -> Tensor:
    """Patterns of each class.

    Args:
        labels: Class ids, int64, shape ``(N,)``; N may be 0.
        n_classes: K.

    Returns:
        int64, shape ``(K,)``.

    Raises:
        ValueError: If a label is not in 0 .. K-1.

    Example:
        >>> class_counts(torch.tensor([2, 0, 2]), n_classes=4)
        tensor([1, 0, 2, 0])
    """
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise ValueError(
            f"labels are from {int(labels.min())} to {int(labels.max())}; wanted 0 to "
            f"{n_classes - 1}, as the classifier has {n_classes} rows"
        )
    return torch.bincount(labels, minlength=n_classes)


def consolidations(data: Tensor, memory: Tensor, repeat: Repeat = "once") -> Tensor:
    """How often each row is consolidated at the end of an experience.

    Args:
        data: Patterns of each class in the new data, shape ``(K,)``.
        memory: The same of the memory, shape ``(K,)``.
        repeat: ``"once"``: each class of either, as in the papers. ``"per_pattern"``:
            once for each pattern of the memory and once for a class of the new data,
            as in the authors' PyTorch script, by an oversight: rows then are nearly
            those of the last experience.

    Returns:
        k, int64, shape ``(K,)``; above 0 exactly for the classes of J.

    Raises:
        ValueError: If ``repeat`` is neither.

    Example:
        >>> data, memory = torch.tensor([9, 9, 0, 0]), torch.tensor([5, 0, 5, 0])
        >>> consolidations(data, memory), consolidations(data, memory, "per_pattern")
        (tensor([1, 1, 1, 0]), tensor([6, 1, 5, 0]))
    """
    require_choice(("once", "per_pattern"), repeat=repeat)
    if repeat == "once":
        return (data + memory > 0).long()
    return (data > 0).long() + memory


def reset_rows(saved: Tensor, past: Tensor, current: Tensor) -> Tensor:
    """The classifier an experience starts with.

    Args:
        saved: Consolidated rows, shape ``(K, D)``.
        past: Patterns of each class so far, shape ``(K,)``.
        current: Patterns of each class in the experience, memory included, ``(K,)``.

    Returns:
        Shape ``(K, D)``: the saved row of each class with a past that takes part,
        zeros for all others.

    Example:
        >>> past, current = torch.tensor([2, 2, 0]), torch.tensor([1, 0, 1])
        >>> reset_rows(torch.ones(3, 1), past, current).T
        tensor([[1., 0., 0.]])
    """
    known = (past > 0) & (current > 0)
    return torch.where(known[:, None], saved, 0)


def shifted_rows(trained: Tensor, repeats: Tensor) -> Tensor:
    r"""Trained rows less the mean of all weights that take part.

    .. math:: t_c = W_c - a, \qquad a = \frac{\sum_{c \in J} k_c \sum_d W_{cd}}
        {D \sum_{c \in J} k_c}

    Args:
        trained: :math:`W`, shape ``(K, D)``.
        repeats: :math:`k`, see `consolidations`, shape ``(K,)``; not all 0.

    Returns:
        :math:`t`, shape ``(K, D)``, with mean 0 over J (each row k times).

    Example:
        >>> shifted_rows(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([1, 1, 0])).T
        tensor([[-1.,  1.,  7.]])
    """
    share = repeats.to(trained) / repeats.sum()
    return trained - (share * trained.mean(1)).sum()


def consolidated_rows(
    trained: Tensor, saved: Tensor, past: Tensor, current: Tensor, repeats: Tensor
) -> Tensor:
    r"""Rows to keep after an experience.

    .. math:: s_c \leftarrow \frac{w_c s_c + t_c}{w_c + 1}
        \text{ for } c \in J, \qquad w_c = \sqrt{past_c / current_c}

    with :math:`t` of `shifted_rows`, done :math:`k_c` times, in closed form
    :math:`s_c \leftarrow t_c + (s_c - t_c) (w_c / (w_c + 1))^{k_c}`. A class without
    a past gets :math:`t_c`; one outside of J keeps its row to the last bit.

    Args:
        trained: Rows after training, :math:`W`, shape ``(K, D)``.
        saved: :math:`s`, shape ``(K, D)``.
        past: Patterns of each class before the experience, shape ``(K,)``.
        current: Patterns of each class in it, memory included, shape ``(K,)``.
        repeats: :math:`k`, see `consolidations`, shape ``(K,)``.

    Returns:
        The new :math:`s`, shape ``(K, D)``.

    Example:
        >>> W, s = torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [5.0]])
        >>> past, current = torch.tensor([4, 0]), torch.tensor([1, 9])
        >>> consolidated_rows(W, s, past, current, torch.tensor([1, 1])).T
        tensor([[3., 1.]])

    References:
        Lomonaco, Maltoni, Pellegrini, CVPR Workshops 2020, algorithm CWR*.
    """
    shifted = shifted_rows(trained, repeats)
    w = (past.to(trained) / current.clamp_min(1).to(trained)).sqrt()
    rest = (w / (w + 1)) ** repeats.to(trained)
    merged = shifted + rest[:, None] * (saved - shifted)
    # not a product with 0: rows that were never saved may hold anything
    merged = torch.where((past > 0)[:, None], merged, shifted)
    return torch.where((current > 0)[:, None], merged, saved)
