"""What all figures are made with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One figure, measured.

    Attributes:
        name: Of it.
        value: What was found.
        target: What it should reach.
        at_least: Whether more is better; otherwise less is.
        what: Numerator and denominator of the figure, in words.
        unit: Of the figure; a ratio has "x".
    """

    name: str
    value: float
    target: float
    at_least: bool
    what: str
    unit: str = "x"

    @property
    def reached(self) -> bool:
        """Whether the target is."""
        at_least, at_most = self.value >= self.target, self.value <= self.target
        return at_least if self.at_least else at_most

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        target = f"{sign} {self.target:g}{self.unit}"
        verdict = "reached" if self.reached else "MISSED"
        figure = f"{self.value:.2f}{self.unit}"
        return f"{self.name:12}{figure:>9}  {target:10}{verdict:9}{self.what}"


@dataclass(frozen=True)
class Entry:
    """How to come by one figure.

    Attributes:
        name: As in ``--only``.
        what: As in `Figure`, like the following ones.
        target: As there.
        at_least: As there.
        measure: From the number of repeats to the figure.
        unit: As in `Figure`.
    """

    name: str
    what: str
    target: float
    at_least: bool
    measure: Callable[[int], float]
    unit: str = "x"

    def figure(self, repeats: int) -> Figure:
        """Measure."""
        value = self.measure(repeats)
        return Figure(
            self.name, value, self.target, self.at_least, self.what, self.unit
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


def iteration_ratio(
    ours: Any, reference: Any, prepare: Any, batch_size: int, repeats: int
) -> float:
    """Median time of a training iteration over that of another strategy.

    Args:
        ours: Makes a strategy.
        reference: Makes the other.
        prepare: From one of these and a plugin for it to a function that trains.
        batch_size: Iterations of other sizes do not count.
        repeats: Turns of each side, after one that does not count.
    """
    watches = [stopwatch(batch_size), stopwatch(batch_size)]
    trained = [
        prepare(make, watch)
        for make, watch in zip((ours, reference), watches, strict=True)
    ]
    for repeat in range(repeats + 1):
        for train, watch in zip(trained, watches, strict=True):
            if repeat <= 1:
                watch.seconds.clear()
            train()
    medians = [statistics.median(watch.seconds) for watch in watches]
    return medians[0] / medians[1]


def stopwatch(batch_size: int) -> Any:
    """A plugin that notes the seconds of each whole iteration."""
    from avalanche.core import SupervisedPlugin

    class Stopwatch(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            if len(strategy.mb_y) == batch_size:  # not the last, smaller one
                self.seconds.append(time.perf_counter() - self.start)

    return Stopwatch()
