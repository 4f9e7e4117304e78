"""How many exemplars each class may keep, in buffers that rank them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from avalanche_ext._checks import require_whole


def share(per_class: int | None, max_size: int, arrival: int, n_classes: int) -> int:
    """Exemplars a class may keep; of a total, earlier classes get the remainder.

    Args:
        per_class: Exemplars a class; None: a share of the total.
        max_size: The total.
        arrival: Place of the class in the order of arrival, from 0.
        n_classes: Number of classes, more than ``arrival``.

    Returns:
        A number >= 0; over all classes at most the total.

    Example:
        >>> [share(None, 8, place, 3) for place in range(3)]
        [3, 3, 2]
    """
    if per_class is not None:
        return per_class
    return -((arrival - max_size) // n_classes)


def require_total(per_class: int | None, new_size: Any) -> None:
    """Refuse a new total that is none, or for a buffer that has no total.

    Args:
        per_class: Exemplars a class, or None.
        new_size: The total wanted.

    Raises:
        ValueError: If the size is not a whole number from 1 on, or ``per_class`` given.
    """
    require_whole(1, new_size=new_size)
    if per_class is not None:
        raise ValueError(
            f"per_class is {per_class}; wanted a buffer made with max_size"
        )


def warn_of_few(wanted: int, few: Mapping[int, int]) -> None:
    """Warn, where there are any, of classes with fewer samples than exemplars wanted.

    Args:
        wanted: Exemplars a class.
        few: Samples by class id.
    """
    if few:
        warnings.warn(
            f"{wanted} exemplars a class wanted, but these classes have fewer samples, "
            f"and keep all: {dict(few)}",
            stacklevel=4,
        )


def require_finite_features(features: Tensor, label: int) -> None:
    """Refuse features that cannot be ranked.

    Args:
        features: Of the samples of a class, ``(N, D)``.
        label: Its id.

    Raises:
        ValueError: If they are not finite.
    """
    if not bool(features.isfinite().all()):
        raise ValueError(
            f"features of class {label} are not finite; wanted finite numbers: did "
            "training diverge?"
        )
