"""The table of results as Markdown: one table a setting, with the commands below."""

from __future__ import annotations

from collections.abc import Sequence

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


def markdown(rows: Sequence[Row], left: Sequence[Target]) -> str:
    """Lay out all rows.

    Args:
        rows: The rows.
        left: Published figures that were not run, to list at the end.

    Returns:
        Sections of Markdown, that end in a newline.
    """
    notes, machines = Notes(), Notes()
    parts: list[str] = []
    for setting, its_rows in by_setting(rows).items():
        heads = ("recipe", "", *HEADS, "hardware")
        body = [
            (
                f"`{row.recipe}`",
                details_of(row, its_rows),
                *cells(row, notes),
                str(machines.number(row.hardware)),
            )
            for row in its_rows
        ]
        commands = "\n".join(dict.fromkeys(row.runs[0]["command"] for row in its_rows))
        parts += [
            f"## {_escaped(setting)}",
            table_of(heads, body),
            f"```text\n{commands}\n```",
        ]
    if left:
        body = [
            (f"`{t.recipe}`", METRICS[t.metric], figure_of(t), source_of(t), "not run")
            for t in left
        ]
        heads = ("recipe", "metric", "paper", "source", "mark")
        parts += ["## Not run", table_of(heads, body)]
    parts += [f"({n}) {_escaped(text)}" for n, text in enumerate(notes.texts, start=1)]
    parts += [
        f"Hardware {n}: {_escaped(text)}"
        for n, text in enumerate(machines.texts, start=1)
    ]
    return "\n\n".join([*parts, CAPTION]) + "\n"


def table_of(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table of Markdown.

    Args:
        heads: Head of each column.
        body: Cells of each row.

    Returns:
        Its lines, without a newline at the end.

    Example:
        >>> print(table_of(("a", "b"), [("1|2", "x")]))
        | a | b |
        |---|---|
        | 1\\|2 | x |
    """
    lines = [heads, *body]
    text = ["| " + " | ".join(map(_escaped, line)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(heads), *text[1:]])


def _escaped(text: str) -> str:
    for letter in "\\|<":
        text = text.replace(letter, f"\\{letter}")
    return text.replace("\n", "<br>")
