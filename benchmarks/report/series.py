"""What the figures of the report show: all that runs measured over experiences."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.names import UsageError
from benchmarks.report.curves import Curve, Values, make_curve
from benchmarks.runs.accuracy_matrix import (
    Matrix,
    accuracy_over_experiences,
    forgetting,
)
from benchmarks.runs.results import read_matrix
from benchmarks.tables.rows import Row, told_apart

_OWN = re.compile(r"(.*)/Exp(\d+)$")
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))
_PHASES = ("train_phase", "eval_phase", "train_stream", "test_stream")
_WHAT = {
    "Gradient_Reconstruction": "Gradient of the past experiences' loss, true against "
    "reconstructed by the method",
    "Units_": "Percent of the units of all layers",
    "Exemplars_": "Loss at the end of the optimisation of exemplars",
    "TaskRecognition_": "Fraction of test images whose task is recognised",
}
"""What further metrics mean, by the beginning of their names; shown in captions."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves that share their axes.

    Args:
        title: The quantity.
        unit: Its unit; empty: a plain number.
        what: What is seen, a sentence without its point.
        curves: By number of the series.
    """

    title: str
    unit: str
    what: str
    curves: Mapping[int, Curve]

    @property
    def caption(self) -> str:
        """What is seen, of how many runs, in which unit."""
        low, high = (f(c.n for c in self.curves.values()) for f in (min, max))
        unit = f", in {self.unit}" if self.unit else ""
        if high == 1:
            return f"{self.what}{unit}. One seed."
        n = f"n = {low}" if low == high else f"n = {low} to {high}"
        spread = "± 1 standard deviation"
        return f"{self.what}{unit}. Mean {spread} over seeds; {n}."


@dataclass(frozen=True, kw_only=True)
class Series:
    """A row of the table, as the figures of its setting show it.

    Args:
        number: From 1 in its setting; stands for it where there is no room for more.
        row: The runs.
        details: Options in which it differs from rows of the same recipe.
        matrices: Matrix of accuracies of each run.
    """

    number: int
    row: Row
    details: list[str]
    matrices: Sequence[Matrix]

    @property
    def name(self) -> str:
        """Recipe and details in a line."""
        return " ".join([f"{self.number}. {self.row.recipe}", *self.details])


def make_series(rows: Sequence[Row]) -> list[Series]:
    """Number the rows of a setting and read their matrices.

    Args:
        rows: All rows of the setting.

    Returns:
        One series a row.

    Raises:
        UsageError: If a run has no ``accuracy.csv``.
    """
    return [
        Series(
            number=number,
            row=row,
            details=told_apart(row, rows),
            matrices=[_matrix(run) for run in row.runs],
        )
        for number, row in enumerate(rows, start=1)
    ]


def _matrix(run: Mapping[str, Any]) -> Matrix:
    path = Path(run["folder"]) / "accuracy.csv"
    if not path.exists():
        raise UsageError(f"no {path}; wanted it beside run.json")
    return read_matrix(path)


def further_metrics(run: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """The further metrics of a run over its experiences.

    Of what is published for each training experience apart, ``.../Exp003``, each
    experience gives its own value. Left out is what is published for each test
    experience, ``.../Task000/Exp003``, or layer, ``Units_Free/.../layer`` beside
    ``Units_Free/...``.

    Args:
        run: Contents of a ``run.json``.

    Returns:
        Values by name, one an experience.

    Example:
        >>> further_metrics({"further_metrics": [
        ...     {"a/b": 1.0, "a/b/layer": 5.0, "c/Exp000": 2.0},
        ...     {"a/b": 3.0, "c/Exp000": 2.0, "c/Exp001": 4.0, "d/Task000/Exp000": 1.0},
        ... ]})
        {'a/b': [1.0, 3.0], 'c': [2.0, 4.0]}
    """
    measured = run.get("further_metrics") or []  # older runs have none
    found: dict[str, list[float | None]] = {}
    for i, values in enumerate(measured):
        for name, value in values.items():
            own = _OWN.fullmatch(name)
            if "/Task" in name or (own and int(own[2]) != i):
                continue
            if name.rpartition("/")[0] in values:
                continue
            key = own[1] if own else name
            found.setdefault(key, [None] * len(measured))[i] = value
    return found


def make_charts(series: Sequence[Series]) -> list[Chart]:
    """All that the runs of a setting measured over experiences.

    Args:
        series: All of the setting.

    Returns:
        Charts with a curve at least.
    """
    accuracy = Chart(
        title="Accuracy",
        unit="%",
        what="Accuracy over all classes seen so far, after each experience",
        curves=_curves(
            series,
            lambda run, matrix: accuracy_over_experiences(matrix, run["test_images"]),
            scale=100,
        ),
    )
    forgets = Chart(
        title="Forgetting",
        unit="percentage points",
        what="Mean drop from the best accuracy on each past experience to that of now",
        curves=_curves(
            series,
            lambda _, matrix: [forgetting(matrix[:i]) for i in _counts(matrix)],
            scale=100,
        ),
    )
    charts = [accuracy, forgets, _memory(series), *_further(series)]
    return [chart for chart in charts if chart.curves]


def _counts(matrix: Matrix) -> range:
    return range(1, len(matrix) + 1)


def _curves(
    series: Sequence[Series],
    values: Callable[[Mapping[str, Any], Matrix], Values],
    *,
    scale: float = 1.0,
) -> dict[int, Curve]:
    """The curve of each series that has one."""
    curves = {}
    for one in series:
        runs = map(values, one.row.runs, one.matrices)
        if curve := make_curve(runs, scale=scale):
            curves[one.number] = curve
    return curves


def _memory(series: Sequence[Series]) -> Chart:
    runs = [run for one in series for run in one.row.runs]
    most = max(v or 0 for run in runs for v in kept_bytes(run))
    size, unit = next((s, u) for s, u in _SIZES if s <= max(most, 1))
    return Chart(
        title="Memory",
        unit=unit,
        what="What the method keeps besides the model that it trains",
        curves=_curves(series, lambda run, _: kept_bytes(run), scale=1 / size)
        if most
        else {},
    )


def kept_bytes(run: Mapping[str, Any]) -> list[float | None]:
    """Bytes that a method keeps after each experience, of all kinds together.

    Args:
        run: Contents of a ``run.json``.

    Returns:
        One value an experience; of older runs, the last one alone is known.
    """
    last = run.get("memory_bytes")
    missing: list[Any] = [None] * (run["experiences_finished"] - 1)
    kinds = run.get("memory_over_experiences") or [*missing, last]
    return [None if kind is None else float(sum(kind.values())) for kind in kinds]


def _further(series: Sequence[Series]) -> list[Chart]:
    runs = [run for one in series for run in one.row.runs]
    known = {id(run): further_metrics(run) for run in runs}
    names = dict.fromkeys(name for metrics in known.values() for name in metrics)

    def values(name: str) -> Callable[[Mapping[str, Any], Matrix], Values]:
        return lambda run, _: known[id(run)].get(name, [])

    return [
        Chart(
            title=_title(name),
            unit="",
            what=_meaning(name),
            curves=_curves(series, values(name)),
        )
        for name in names
    ]


def _title(name: str) -> str:
    parts = [part for part in name.split("/") if part not in _PHASES]
    return ": ".join(parts).replace("_", " ")


def _meaning(name: str) -> str:
    known = [text for start, text in _WHAT.items() if name.startswith(start)]
    return f"{known[0]} (metric {name})" if known else f"Metric {name}"
