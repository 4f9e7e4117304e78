"""The table of results for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.tables.cells import (
    CAPTION,
    HEADS,
    Notes,
    cells,
    details_of,
    figure_of,
    source_of,
)
from benchmarks.tables.rows import METRICS, Row, by_setting
from benchmarks.tables.targets import Target

if TYPE_CHECKING:
    from rich.table import Table


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


def print_rows(
    rows: Sequence[Row], left: Sequence[Target], *, everything: bool
) -> None:
    """Print all rows.

    Args:
        rows: The rows.
        left: Published figures that were not run.
        everything: Whether to list them, or only to say how many there are.
    """
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
