"""Which images each experience brings where classes come back, as in CORe50's NICv2.

Imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.names import UsageError

FIRST_CLASSES, FIRST_IMAGES, LATER_IMAGES = 3, 100, 60
"""Classes of the first experience, its images of each, and those of each later one."""
VISITS = 3
"""Experiences in which each class appears."""


def nic_classes(seed: int, n_classes: int = 10) -> list[list[int]]:
    """Classes of each experience: some at first, then one at a time.

    Each class appears in three experiences; the order of the later ones is drawn, and
    so is when a class is met for the first time.

    Args:
        seed: Decides the order, >= 0.
        n_classes: Number of classes, at least 3.

    Returns:
        ``3 * n_classes - 2`` lists: one of three classes, the others of one.

    Example:
        >>> first, *later = nic_classes(seed=0)
        >>> len(first), len(later), {len(classes) for classes in later}
        (3, 27, {1})
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_classes)
    first, new = order[:FIRST_CLASSES], order[FIRST_CLASSES:]
    later = np.concatenate([np.repeat(first, VISITS - 1), np.repeat(new, VISITS)])
    return [sorted(first.tolist()), *([c] for c in rng.permutation(later).tolist())]


def nic_assignment(targets: Sequence[int], seed: int) -> list[list[int]]:
    """Indices of the images of each experience; no image is used twice.

    Args:
        targets: Label of each image of the data set.
        seed: Decides the classes of the experiences and which images stand for them.

    Returns:
        For each experience of `nic_classes` 100 images of each of the first classes,
        then 60 of each later one.

    Raises:
        UsageError: If a class has too few images.
    """
    labels = np.asarray(targets)
    rng = np.random.default_rng([seed, 1])
    unused = {c: rng.permutation(np.flatnonzero(labels == c)) for c in range(10)}
    assignment: list[list[int]] = []
    for classes in nic_classes(seed):
        n = LATER_IMAGES if assignment else FIRST_IMAGES
        for c in classes:
            if len(unused[c]) < n:
                raise UsageError(
                    f"class {c} has {sum(labels == c)} images; wanted at least "
                    f"{FIRST_IMAGES + (VISITS - 1) * LATER_IMAGES}"
                )
        assignment.append([int(i) for c in classes for i in unused[c][:n]])
        unused.update({c: unused[c][n:] for c in classes})
    return assignment
