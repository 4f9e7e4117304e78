"""The table of results: ours, mean and spread over seeds, beside the paper's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from benchmarks.names import UsageError
from benchmarks.results import read_runs
from benchmarks.targets import Target, read_targets, verdict

if TYPE_CHECKING:
    from rich.table import Table

METRICS = {
    "final_accuracy": "final",
    "average_incremental_accuracy": "average",
    "forgetting": "forgets",
}
"""Metrics shown, and the heads of their columns."""
SAME = (
    "recipe",
    "options",
    "changed",
    "smoke",
    "experiences",
    "experiences_finished",
    "test_images",
    "note",
)
"""What runs must share to be one row."""
CAPTION = (
    "Percent, mean ± standard deviation over seeds. final: accuracy over all classes at "
    "the end; average: mean over experiences of the accuracy over the classes seen so "
    "far; forgets: mean drop from the best accuracy; paper, verdict: see targets.csv."
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Runs that differ in their seeds only, and what they are compared with.

    Args:
        runs: Contents of their ``run.json``, at least one.
        targets: The papers' figures for their setting.
    """

    runs: Sequence[dict[str, Any]]
    targets: Sequence[Target]

    def verdicts(self) -> list[tuple[str, Target | None]]:
        """What our mean is worth beside each of the papers' figures.

        Returns:
            Texts of `targets.verdict`, each with its figure; ``None`` in place of a
            figure that the runs may not be compared with. At least one.
        """
        found: list[tuple[str, Target | None]] = []
        targets: Sequence[Target | None] = self.targets or [None]
        for target in targets:
            metric = target.metric if target else "final_accuracy"
            text = verdict(self.runs[0], target, mean(self.percent(metric)))
            comparable = text.startswith(("reproduced", "differs"))
            pair = text, target if comparable else None
            found += [] if pair in found else [pair]
        return found

    def percent(self, metric: str) -> list[float]:
        """Values of one metric in percent, without those that mean nothing.

        Args:
            metric: A name among the ``metrics`` of ``run.json``.

        Returns:
            At most one value a run.
        """
        values = (run["metrics"][metric] for run in self.runs)
        return [100 * value for value in values if value is not None]


def make_rows(runs: Iterable[dict[str, Any]], targets: Sequence[Target]) -> list[Row]:
    """Group runs by all but their seed, and find the figures to compare them with.

    Args:
        runs: Contents of ``run.json`` files.
        targets: The papers' figures.

    Returns:
        A row for each group.
    """
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        group = groups.setdefault(json.dumps([run.get(name) for name in SAME]), {})
        group.setdefault(run["seed"], run)  # a copied folder is no second run
    rows = [list(group.values()) for group in groups.values()]
    return [
        Row(runs=row, targets=[t for t in targets if t.fits(row[0])]) for row in rows
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


def told_apart(row: Row, rows: Sequence[Row]) -> list[str]:
    """The options in which a row differs from others of the same recipe.

    Args:
        row: One of the rows.
        rows: All rows of a setting.

    Returns:
        ``name=value`` of each; none if the recipe has one row only.
    """
    own = row.runs[0]
    alike = [r.runs[0] for r in rows if r.runs[0]["recipe"] == own["recipe"]]
    options: dict[str, Any] = own["options"]
    return [
        f"{name}={value}"
        for name, value in options.items()
        if any(run["options"].get(name) != value for run in alike)
    ]


def _details(row: Row, rows: Sequence[Row]) -> str:
    return "; ".join([*told_apart(row, rows), row.runs[0]["memory"]])


def make_table(setting: str, rows: Sequence[Row], notes: list[str]) -> Table:
    """Lay out the rows of one setting.

    Args:
        setting: Stream, network and epochs in a few words: the head of the table.
        rows: Its rows.
        notes: Sources of the papers' figures; those of these rows are appended.

    Returns:
        A table for a terminal.
    """
    from rich.markup import escape
    from rich.table import Table

    # as narrow as it can be: it should fit into 80 columns
    table = Table(
        title=escape(setting), title_justify="left", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column("recipe")
    for head in ("seeds", *METRICS.values(), "minutes", "paper"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for row in rows:
        run, verdicts = row.runs[0], row.verdicts()
        table.add_row(
            f"{run['recipe']}\n[dim]{escape(_details(row, rows))}[/]",
            str(len(row.runs)),
            *(spread(row.percent(metric)) for metric in METRICS),
            f"{mean(run['minutes'] for run in row.runs):.2f}",
            "\n".join(_paper(figure, notes) for _, figure in verdicts),
            "\n".join(text for text, _ in verdicts),
        )
    return table


def _paper(figure: Target | None, notes: list[str]) -> str:
    if figure is None:
        return "-"
    note = f"{METRICS[figure.metric]}: {figure.source} ({figure.certainty})"
    if note not in notes:
        notes.append(note)
    return f"{figure.value:.1f} ({notes.index(note) + 1})"


def print_table(folders: Sequence[Path]) -> None:
    """Print all results below some folders.

    Args:
        folders: Folders of results, of one recipe or of one run.

    Raises:
        UsageError: If a folder does not exist or holds no run.
    """
    from rich.console import Console

    rows = make_rows(read_runs(folders), read_targets())
    if not rows:
        wanted = "python -m benchmarks run RECIPE"
        places = ", ".join(str(folder) for folder in folders)
        raise UsageError(f"no results in {places}; {wanted} makes some")
    settings: dict[str, list[Row]] = {}
    for row in rows:
        run = row.runs[0]
        head = "; ".join(filter(None, (run["setting"], run.get("note"))))
        settings.setdefault(head, []).append(row)
    # a file or pipe has no width of its own
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    notes: list[str] = []
    for setting, its_rows in settings.items():
        console.print(make_table(setting, its_rows, notes), "")
    for number, note in enumerate(notes, start=1):
        console.print(f"({number}) {note}", markup=False)
    console.print(CAPTION, style="dim", markup=False)
