"""Averages over the seeds of what runs measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import mean, stdev
from typing import TypeAlias

from benchmarks.runs.accuracy_matrix import Matrix

Values: TypeAlias = Sequence["float | None"]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity over experiences, of runs that differ in their seeds only.

    Args:
        experiences: Numbers, from 1, of the experiences with a value.
        mean: Over the runs, at each of them.
        spread: Sample standard deviation at each; 0 where one run has a value.
        n: Number of runs.
    """

    experiences: list[int]
    mean: list[float]
    spread: list[float]
    n: int


def make_curve(runs: Iterable[Values], *, scale: float = 1.0) -> Curve | None:
    """Average over runs.

    Args:
        runs: Values of each over its experiences; ``None`` where there is none.
        scale: Factor, e.g. 100 for percent.

    Returns:
        The curve; ``None`` if no run has a value.

    Example:
        >>> make_curve([[0.5, None, 0.25], [0.5]], scale=100)
        Curve(experiences=[1, 3], mean=[50.0, 25.0], spread=[0.0, 0.0], n=2)
    """
    runs = [run for run in runs if any(v is not None for v in run)]
    columns = [
        (i, [scale * v for v in column if v is not None])
        for i, column in enumerate(zip_longest(*runs), start=1)
    ]
    columns = [(i, values) for i, values in columns if values]
    if not columns:
        return None
    return Curve(
        experiences=[i for i, _ in columns],
        mean=[mean(values) for _, values in columns],
        spread=[stdev(values) if values[1:] else 0.0 for _, values in columns],
        n=len(runs),
    )


def mean_matrix(matrices: Sequence[Matrix]) -> list[list[float | None]]:
    """Average matrices of accuracies.

    Args:
        matrices: Of the same shape, at least one.

    Returns:
        Mean of each cell over the matrices with a value there.

    Example:
        >>> mean_matrix([[[0.5, None]], [[1.0, None]]])
        [[0.75, None]]
    """

    def average(*cell: float | None) -> float | None:
        known = [value for value in cell if value is not None]
        return mean(known) if known else None

    by_row = zip(*matrices, strict=True)
    return [list(map(average, *rows)) for rows in by_row]
