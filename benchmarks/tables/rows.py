"""Rows of the table of results: runs that differ in their seeds only, and their worth."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.names import UsageError
from benchmarks.runs.results import read_runs
from benchmarks.tables.targets import FREE_OPTIONS, Target, mark

METRICS = {
    "final_accuracy": "final",
    "average_incremental_accuracy": "average",
    "mean_experience_accuracy": "mean",
    "forgetting": "forgets",
    "first_experience_forgetting": "loses",
}
"""Metrics that figures of papers are of, and short names."""
SAME = (
    "recipe",
    "options",
    "changed",
    "smoke",
    "experiences",
    "experiences_finished",
    "test_images",
    "note",
    "like",
)
"""What runs must share to be one row."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Our mean beside one figure of a paper.

    Args:
        mark: What it is worth, see `targets.mark`.
        target: The figure; ``None`` where the runs may not be compared with any.
        difference: Ours minus the paper's, in percentage points.
    """

    mark: str
    target: Target | None = None
    difference: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """Runs that differ in their seeds only, and what they are compared with.

    Args:
        runs: Contents of their ``run.json``, at least one, in the order of seeds.
        targets: The papers' figures of their recipe.
    """

    runs: Sequence[dict[str, Any]]
    targets: Sequence[Target]

    @property
    def recipe(self) -> str:
        """Name of the recipe."""
        return str(self.runs[0]["recipe"])

    @property
    def setting(self) -> str:
        """Stream, network and epochs, and the note: what rows of a table share."""
        run = self.runs[0]
        setting = re.sub(r", seed \d+", "", run["setting"])  # of the class order
        return "; ".join(filter(None, (setting, run.get("note"))))

    @property
    def minutes(self) -> float:
        """Mean time of a run."""
        return mean(run["minutes"] for run in self.runs)

    @property
    def memory_bytes(self) -> float | None:
        """Mean of the bytes that the method keeps at the end."""
        known = [run["memory_bytes"] for run in self.runs if "memory_bytes" in run]
        return mean(sum(kinds.values()) for kinds in known) if known else None

    @property
    def hardware(self) -> str:
        """What the runs were made on; each kind once."""
        return ", ".join(dict.fromkeys(_hardware(run) for run in self.runs))

    def percent(self, metric: str) -> list[float]:
        """Values of one metric in percent, without those that mean nothing.

        Args:
            metric: A name among the ``metrics`` of ``run.json``.

        Returns:
            At most one value a run.
        """
        values = (run["metrics"].get(metric) for run in self.runs)
        return [100 * value for value in values if value is not None]

    def comparisons(self) -> list[Comparison]:
        """What our mean is worth beside each of the papers' figures.

        Returns:
            At least one; one without a figure where none may be compared with.
        """
        found: list[Comparison] = []
        for target in self.targets or [None]:
            values = self.percent(target.metric if target else "final_accuracy")
            if values:
                found.append(self._comparison(target, mean(values)))
        alone = [c for c in found if c.target is None]
        return [c for c in found if c.target] or alone[:1] or [Comparison(mark="-")]

    def _comparison(self, target: Target | None, percent: float) -> Comparison:
        text = mark(self.runs[0], target, percent)
        if target is None or text.split(":")[0] not in COMPARED:
            return Comparison(mark=text)
        difference = percent - target.value
        return Comparison(mark=text, target=target, difference=difference)


COMPARED = ("reproduced", "differs", "figure not comparable")
"""Marks of runs whose protocol is the paper's."""


def _hardware(run: dict[str, Any]) -> str:
    machine = run.get("hardware") or {}
    if machine.get("gpu"):
        return str(machine["gpu"])
    cpu, threads = machine.get("cpu"), machine.get("threads")
    return f"{cpu}, {threads} thread{'s' if threads != 1 else ''}" if cpu else "-"


def make_rows(runs: Iterable[dict[str, Any]], targets: Sequence[Target]) -> list[Row]:
    """Group runs by all but their seeds, and find the figures to compare them with.

    Args:
        runs: Contents of ``run.json`` files.
        targets: The papers' figures.

    Returns:
        A row for each group.
    """
    groups: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
    for run in runs:
        group = groups.setdefault(json.dumps([_same(run, name) for name in SAME]), {})
        seeds = run["seed"], run["options"].get("stream_seed", 0)
        group.setdefault(seeds, run)  # a copied folder is no second run
    rows = [[group[seed] for seed in sorted(group)] for group in groups.values()]
    return [
        Row(runs=row, targets=[t for t in targets if t.recipe == row[0]["recipe"]])
        for row in rows
    ]


def _same(run: dict[str, Any], name: str) -> Any:
    value = run.get(name)
    if name not in ("options", "changed"):
        return value
    free = ["stream_seed"]
    if run.get("like"):  # the bytes of that run may differ with the seed
        free.append("memory_bytes")
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if k not in free}
    return [k for k in value or () if k not in free]


def read_rows(folders: Sequence[Path], targets: Sequence[Target]) -> list[Row]:
    """Read the rows of the table from all results below some folders.

    Args:
        folders: Folders of results, of one recipe or of one run.
        targets: The papers' figures.

    Returns:
        At least one row.

    Raises:
        UsageError: If a folder does not exist or holds no run.
    """
    rows = make_rows(read_runs(folders), targets)
    if not rows:
        wanted = "python -m benchmarks run RECIPE"
        places = ", ".join(str(folder) for folder in folders)
        raise UsageError(f"no results in {places}; {wanted} makes some")
    return rows


def by_setting(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Put rows of the same stream, network and epochs together.

    Args:
        rows: The rows.

    Returns:
        Them by `Row.setting`, in the order of first appearance.
    """
    settings: dict[str, list[Row]] = {}
    for row in rows:
        settings.setdefault(row.setting, []).append(row)
    return settings


def not_run(rows: Iterable[Row], targets: Iterable[Target]) -> list[Target]:
    """The published figures that no row is compared with.

    Args:
        rows: All rows.
        targets: All figures.

    Returns:
        Those left.
    """
    compared = {id(c.target) for row in rows for c in row.comparisons()}
    return [target for target in targets if id(target) not in compared]


def told_apart(row: Row, rows: Sequence[Row]) -> list[str]:
    """The options in which a row differs from others of the same recipe.

    Args:
        row: One of the rows.
        rows: All rows of a setting.

    Returns:
        ``name=value`` of each; none if the recipe has one row only.
    """
    alike = [other.runs[0] for other in rows if other.recipe == row.recipe]
    options: dict[str, Any] = row.runs[0]["options"]
    return [
        f"{name}={value}"
        for name, value in options.items()
        if name not in FREE_OPTIONS
        and any(run["options"].get(name) != value for run in alike)
    ]


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation in a few characters.

    Args:
        values: Percentages.

    Returns:
        ``"-"`` without values; no deviation with one value.

    Example:
        >>> spread([50.0, 52.0]), spread([50.0]), spread([])
        ('51.0±1.4', '50.0', '-')
    """
    if not values:
        return "-"
    return f"{mean(values):.1f}" + (f"±{stdev(values):.1f}" if values[1:] else "")


def size(n_bytes: float | None) -> str:
    """Bytes in a few characters.

    Args:
        n_bytes: How many; ``None`` where unknown.

    Returns:
        Decimal units.

    Example:
        >>> size(None), size(0), size(6144000), size(54_500)
        ('-', '0', '6.1 MB', '54.5 kB')
    """
    if n_bytes is None:
        return "-"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes:.0f}" + (" B" if n_bytes else "")
