"""Methods in rows, the baselines in the same frame in columns: the README's table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.names import UsageError
from benchmarks.runs.baseline_names import BASELINES
from benchmarks.tables.as_markdown import table_of
from benchmarks.tables.cells import figure_of
from benchmarks.tables.rows import Row, size, spread


def beside(rows: Sequence[Row], folders: Iterable[Path]) -> str:
    """Lay out all methods that baselines were run beside.

    Args:
        rows: All rows; those with ``like`` belong to the recipe of that name. Runs that
            are not finished are left out.
        folders: Where they were found.

    Returns:
        A table of Markdown and what its columns are, ending in a newline. Accuracies
        are final ones; baselines keep at most the bytes of the method in their row.

    Raises:
        UsageError: If no finished run has a finished baseline.
    """
    rows = [row for row in rows if row.runs[0]["finished"]]
    alike: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if like := row.runs[0].get("like"):
            alike.setdefault((like, row.setting), {})[row.recipe] = row
    ran = {name for beside_it in alike.values() for name in beside_it}
    names = [name for name in BASELINES if name in ran]
    heads = ("recipe", "stream; network; epochs", "seeds", "ours", "kept", "minutes")
    body = []
    for row in rows:
        found = alike.get((row.recipe, row.setting))
        if found is None or row.runs[0].get("like"):
            continue
        marks = [
            c.mark + (f" ({figure_of(c.target)})" if c.target else "")
            for c in row.comparisons()
        ]
        body.append(
            (
                f"`{row.recipe}`",
                row.setting,
                str(len(row.runs)),
                spread(row.percent("final_accuracy")),
                size(row.memory_bytes),
                f"{row.minutes:.1f}",
                *(
                    spread(found[name].percent("final_accuracy"))
                    if name in found
                    else "-"
                    for name in names
                ),
                "\n".join(marks),
            )
        )
    if not body:
        places = ", ".join(map(str, folders))
        raise UsageError(
            f"no finished run in {places} has baselines (made with --like, or "
            "sweep --baselines)"
        )
    return table_of((*heads, *names, "mark"), body) + "\n"
