"""``python -m benchmarks table``: ours, mean and spread over seeds, beside the paper's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.names import UsageError
from benchmarks.results import read_runs
from benchmarks.rows import (
    METRICS,
    Comparison,
    Row,
    by_setting,
    make_rows,
    not_run,
    size,
    spread,
    told_apart,
)
from benchmarks.targets import Target, read_targets

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = ("final_accuracy", "average_incremental_accuracy", "forgetting")
HEADS = (
    "seeds",
    *(METRICS[name] for name in SHOWN),
    "kept",
    "minutes",
    "paper",
    "difference",
    "mark",
)
CAPTION = (
    "Percent, mean ± standard deviation over seeds. final: accuracy over all classes at "
    "the end; average: mean over experiences of the accuracy over the classes seen so "
    "far; forgets: mean drop from the best accuracy; kept: what the method keeps besides "
    "the network, in bytes; minutes: of a run, training and evaluation; paper: figure of "
    "the metric that its note names, compared only where the protocol is the paper's."
)


def main(arguments: Sequence[str]) -> int:
    """Carry out the command.

    Args:
        arguments: What stands after ``table``.

    Returns:
        Exit code 0.

    Raises:
        UsageError: If a folder does not exist or holds no run, or an option is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks table",
        description="Print ours beside the papers' figures.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "results", nargs="*", type=Path, help="folders of results; none: results"
    )
    parser.add_argument(
        "--format",
        choices=("terminal", "markdown", "csv"),
        default="terminal",
        help="csv: a line a figure, with sources and commands",
    )
    parser.add_argument(
        "--not-run", action="store_true", help="also every published row not run"
    )
    try:
        given, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from error
    if unknown:
        raise UsageError(f"table does not know {unknown[0]}; see table --help")
    targets = read_targets()
    rows = read_rows(given.results or [Path("results")], targets)
    left = not_run(rows, targets)
    if given.format == "csv":
        from benchmarks.table_csv import write_csv

        write_csv(rows, left if given.not_run else [])
    elif given.format == "markdown":
        from benchmarks.markdown import markdown

        print(markdown(rows, left if given.not_run else []), end="")
    else:
        _print(rows, left, everything=given.not_run)
    return 0


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


class Notes:
    """Footnotes: texts by the number of their first use."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """The number of a text, from 1 on.

        Args:
            text: The note.

        Returns:
            The same number each time.
        """
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def source_of(target: Target) -> str:
    """What a footnote says of a figure.

    Args:
        target: The figure.

    Returns:
        Its metric, its source and how sure it is.
    """
    runs = f", mean of {target.seeds} runs" if target.seeds else ""
    return f"{METRICS[target.metric]}: {target.source}{runs} ({target.certainty})"


def figure_of(target: Target) -> str:
    """A paper's figure with its spread.

    Args:
        target: The figure.

    Returns:
        A few characters.
    """
    known = target.spread is not None
    return f"{target.value:.1f}" + (f"±{target.spread:.1f}" if known else "")


def details_of(row: Row, rows: Sequence[Row]) -> str:
    """What tells a row from others of its recipe, and what it remembers.

    Args:
        row: One of the rows.
        rows: All rows of the setting.

    Returns:
        Options and memory in a few words.
    """
    return "; ".join([*told_apart(row, rows), row.runs[0]["memory"]])


def cells(row: Row, notes: Notes) -> list[str]:
    """The cells of a row, below `HEADS`.

    Args:
        row: The row.
        notes: Sources of the papers' figures; those of this row are added.

    Returns:
        A text each; several figures of a paper stand one below the other.
    """
    found = row.comparisons()
    return [
        str(len(row.runs)),
        *(spread(row.percent(metric)) for metric in SHOWN),
        size(row.memory_bytes),
        f"{row.minutes:.2f}",
        "\n".join(_paper(c, notes) for c in found),
        "\n".join(
            "-" if c.difference is None else f"{c.difference:+.1f}" for c in found
        ),
        "\n".join(c.mark for c in found),
    ]


def _paper(comparison: Comparison, notes: Notes) -> str:
    target = comparison.target
    if target is None:
        return "-"
    return f"{figure_of(target)} ({notes.number(source_of(target))})"


def make_table(
    setting: str, rows: Sequence[Row], notes: Notes, machines: Notes
) -> Table:
    """Lay out the rows of one setting.

    Args:
        setting: Stream, network and epochs in a few words: the head of the table.
        rows: Its rows.
        notes: Sources of the papers' figures; those of these rows are added.
        machines: Hardware; that of these rows is added.

    Returns:
        A table for a terminal.
    """
    from rich.markup import escape
    from rich.table import Table

    # as narrow as it can be: it should fit into 100 columns
    table = Table(
        title=escape(setting), title_justify="left", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column("recipe", min_width=24, overflow="fold")
    for head in HEADS[:-1]:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column(HEADS[-1], overflow="fold")
    for row in rows:
        machine = f"hardware {machines.number(row.hardware)}"
        details = escape(f"{details_of(row, rows)}; {machine}")
        table.add_row(f"{row.recipe}\n[dim]{details}[/]", *cells(row, notes))
    return table


def _print(rows: Sequence[Row], left: Sequence[Target], *, everything: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    # a file or pipe has no width of its own
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    notes, machines = Notes(), Notes()
    for setting, its_rows in by_setting(rows).items():
        console.print(make_table(setting, its_rows, notes, machines), "")
    if left and everything:
        table = Table(title="not run", title_justify="left", box=None)
        for head in ("recipe", "metric", "paper", "source"):
            table.add_column(head, justify="right" if head == "paper" else "left")
        for t in left:
            table.add_row(t.recipe, METRICS[t.metric], figure_of(t), source_of(t))
        console.print(table, "")
    for number, note in enumerate(notes.texts, start=1):
        console.print(f"({number}) {note}", markup=False)
    for number, machine in enumerate(machines.texts, start=1):
        console.print(f"hardware {number}: {machine}", markup=False)
    console.print(CAPTION, style="dim", markup=False)
    if left and not everything:
        text = f"{len(left)} published figures are not run here: --not-run shows them"
        console.print(text, style="dim", markup=False)
