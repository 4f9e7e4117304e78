"""The figures that papers print, from the matrix of accuracies.

A matrix is a list of rows. ``matrix[i][j]`` is the accuracy, in [0, 1], on test
experience ``j`` once training experience ``i`` is finished, and ``None`` where nothing
was evaluated: a row of nothing else belongs to an experience after which nothing was. A
matrix has one column where the test stream is one complete test set.
``test_images[j]`` is the number of images of test experience ``j``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Matrix: TypeAlias = Sequence[Sequence["float | None"]]


def accuracy_over_experiences(
    matrix: Matrix, test_images: Sequence[int]
) -> list[float | None]:
    """Accuracy over everything seen so far, after each training experience.

    Row ``i`` gives the mean of its evaluated cells ``j <= i``, each weighted by its
    number of images: the accuracy over all classes seen so far.

    Args:
        matrix: E rows of accuracies, each in [0, 1].
        test_images: Number of images of each test experience, > 0.

    Returns:
        E accuracies in [0, 1]; ``None`` for a row without any value.

    Raises:
        ValueError: If a row has values, but none among those seen.

    Example:
        >>> accuracy_over_experiences([[1.0, None], [0.5, 1.0]], [100, 300])
        [1.0, 0.875]
    """
    return [_seen(row, test_images, i) for i, row in enumerate(matrix)]


def _seen(
    row: Sequence[float | None], test_images: Sequence[int], i: int
) -> float | None:
    if all(a is None for a in row):
        return None
    row = row[: i + 1]
    cells = [(a, n) for a, n in zip(row, test_images, strict=False) if a is not None]
    if not cells:
        raise ValueError(f"row {i} of the accuracy matrix has no value, wanted one")
    return sum(a * n for a, n in cells) / sum(n for _, n in cells)


def forgetting(matrix: Matrix) -> float | None:
    r"""Mean drop from the best accuracy of the past to the last one.

    .. math:: F = \frac{1}{E-1} \sum_{j<E-1} \max_{i<E-1} a_{ij} - a_{E-1,j}

    Args:
        matrix: E rows of accuracies, each in [0, 1].

    Returns:
        Mean drop, in [-1, 1] (positive: something was forgotten), or ``None`` where it
        means nothing: fewer than two rows, or a single test experience for all rows.

    Example:
        >>> forgetting([[0.75, None, None], [1.0, 0.5, None], [0.5, 0.5, 1.0]])
        0.25

    References:
        Chaudhry et al., ECCV 2018 (Riemannian Walk).
    """
    past = [_column(matrix[:-1], j) for j in _old_experiences(matrix)]
    last = [matrix[-1][j] for j in _old_experiences(matrix)]
    drops = [max(p) - a for p, a in zip(past, last, strict=True) if p and a is not None]
    return sum(drops) / len(drops) if drops else None


def backward_transfer(matrix: Matrix) -> float | None:
    r"""Mean change from the accuracy right after an experience to the last one.

    .. math:: BWT = \frac{1}{E-1} \sum_{j<E-1} a_{E-1,j} - a_{jj}

    The negative of what Avalanche calls forgetting.

    Args:
        matrix: E rows of accuracies, each in [0, 1].

    Returns:
        Mean change, in [-1, 1], or ``None`` where :func:`forgetting` is ``None``.

    Example:
        >>> backward_transfer([[0.75, None, None], [1.0, 0.5, None], [0.5, 0.5, 1.0]])
        -0.125

    References:
        Lopez-Paz and Ranzato, NeurIPS 2017 (GEM).
    """
    pairs = [(matrix[-1][j], matrix[j][j]) for j in _old_experiences(matrix)]
    changes = [a - b for a, b in pairs if a is not None and b is not None]
    return sum(changes) / len(changes) if changes else None


def mean_experience_accuracy(matrix: Matrix) -> float | None:
    r"""Plain mean over the experiences seen, at the end; each counts the same.

    .. math:: A = \frac{1}{E} \sum_{j<E} a_{E-1,j}

    Args:
        matrix: E rows of accuracies, each in [0, 1].

    Returns:
        The mean, in [0, 1]; ``None`` where the last row has no value among those seen.

    Example:
        >>> mean_experience_accuracy([[1.0, None], [0.5, 0.75]])
        0.625
    """
    seen = [a for a in matrix[-1][: len(matrix)] if a is not None] if matrix else []
    return sum(seen) / len(seen) if seen else None


def first_experience_forgetting(matrix: Matrix) -> float | None:
    r"""What was lost of the first experience since it was trained.

    .. math:: F = a_{00} - a_{E-1,0}

    Args:
        matrix: E rows of accuracies, each in [0, 1].

    Returns:
        The difference, in [-1, 1], or ``None`` where :func:`forgetting` is ``None`` or a
        value is missing.

    Example:
        >>> first_experience_forgetting([[0.75, None], [0.5, 1.0]])
        0.25

    References:
        Liu et al., CVPR 2020 (Mnemonics).
    """
    if not _old_experiences(matrix):
        return None
    first, last = matrix[0][0], matrix[-1][0]
    return None if first is None or last is None else first - last


def _old_experiences(matrix: Matrix) -> range:
    """Test experiences that belong to a training experience before the last."""
    if not matrix or len(matrix[0]) < 2:
        return range(0)
    return range(min(len(matrix) - 1, len(matrix[0])))


def _column(matrix: Matrix, j: int) -> list[float]:
    return [a for row in matrix if (a := row[j]) is not None]


def paper_metrics(
    matrix: Matrix, test_images: Sequence[int]
) -> dict[str, float | list[float | None] | None]:
    """All figures of this module, by the name they have in ``run.json``.

    Args:
        matrix: E >= 1 rows of accuracies, each in [0, 1]; the last has a value.
        test_images: Number of images of each test experience, > 0.

    Returns:
        ``final_accuracy``, ``average_incremental_accuracy`` (the plain mean of the
        values of ``accuracy_over_experiences``), ``mean_experience_accuracy``,
        ``forgetting``, ``first_experience_forgetting``, ``backward_transfer``, all
        fractions, and ``accuracy_over_experiences``, a list.

    Raises:
        ValueError: If the matrix has no row, or its last one has no value.

    Example:
        >>> figures = paper_metrics([[1.0, None], [0.5, 1.0]], [100, 100])
        >>> figures["final_accuracy"], figures["average_incremental_accuracy"]
        (0.75, 0.875)
    """
    if not matrix:
        raise ValueError("the accuracy matrix has 0 rows, wanted at least 1")
    seen = accuracy_over_experiences(matrix, test_images)
    evaluated = [a for a in seen if a is not None]
    if seen[-1] is None:
        raise ValueError("the last row of the accuracy matrix has no value, wanted one")
    return {
        "final_accuracy": seen[-1],
        "average_incremental_accuracy": sum(evaluated) / len(evaluated),
        "mean_experience_accuracy": mean_experience_accuracy(matrix),
        "forgetting": forgetting(matrix),
        "first_experience_forgetting": first_experience_forgetting(matrix),
        "backward_transfer": backward_transfer(matrix),
        "accuracy_over_experiences": seen,
    }
