"""What all figures are made with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One figure.

    Attributes:
        name: As in ``--only``.
        what: Numerator and denominator of the figure, in words.
        target: What it should reach.
        at_least: Whether more is better; otherwise less is.
        measure: From the number of repeats to the figure.
        unit: Of the figure; a ratio has "x".
    """

    name: str
    what: str
    target: float
    at_least: bool
    measure: Callable[[int], float]
    unit: str = "x"

    def row(self, repeats: int) -> tuple[str, ...]:
        """Measure, and word the outcome."""
        figure = self.measure(repeats)
        reached = figure >= self.target if self.at_least else figure <= self.target
        sign = ">=" if self.at_least else "<="
        return (
            self.name,
            f"{figure:.2f}{self.unit}",
            f"{sign} {self.target:g}{self.unit}",
            "reached" if reached else "MISSED",
            self.what,
        )


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_ratio(
    run: Callable[[], Any], reference: Callable[[], Any], repeats: int
) -> float:
    """Time of ``run`` over time of ``reference``: taking turns, medians, one warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for which, each in zip(times, (run, reference), strict=True):
            taken = seconds(each)
            if repeat:
                which.append(taken)
    return statistics.median(times[0]) / statistics.median(times[1])
