"""The table of results as CSV: a line a figure, with its source and its command."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from statistics import mean, stdev

from benchmarks.tables.cells import SHOWN, details_of
from benchmarks.tables.rows import Comparison, Row, by_setting
from benchmarks.tables.targets import Target

COLUMNS = (
    "setting",
    "recipe",
    "details",
    "seeds",
    "metric",
    "mean",
    "sd",
    "paper",
    "paper_sd",
    "difference",
    "mark",
    "minutes",
    "hardware",
    "memory_bytes",
    "source",
    "certainty",
    "command",
)


def write_csv(rows: Sequence[Row], left: Sequence[Target]) -> None:
    """Write to the standard output a line for each figure.

    Args:
        rows: All rows.
        left: Published figures that were not run, to list at the end.
    """
    writer = csv.DictWriter(sys.stdout, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for its_rows in by_setting(rows).values():
        for row in its_rows:
            writer.writerows(_lines(row, its_rows))
    for target in left:
        writer.writerow(
            {"recipe": target.recipe, "mark": "not run", **_published(target)}
        )


def _lines(row: Row, rows: Sequence[Row]) -> Iterator[dict[str, object]]:
    """A line for each figure of a paper, and one for each other metric shown."""
    found = row.comparisons()
    compared = {c.target.metric for c in found if c.target}
    others = [m for m in SHOWN if m not in compared]
    plain = next((c.mark for c in found if c.target is None), "no target")
    pairs = [(c.target.metric, c) for c in found if c.target]
    for metric, c in [*pairs, *((m, Comparison(mark=plain)) for m in others)]:
        values = row.percent(metric)
        yield {
            "setting": row.setting,
            "recipe": row.recipe,
            "details": details_of(row, rows),
            "seeds": len(row.runs),
            "metric": metric,
            "mean": f"{mean(values):.4f}" if values else "",
            "sd": f"{stdev(values):.4f}" if values[1:] else "",
            "difference": "" if c.difference is None else f"{c.difference:.4f}",
            "mark": c.mark,
            "minutes": f"{row.minutes:.3f}",
            "hardware": row.hardware,
            "memory_bytes": "" if row.memory_bytes is None else int(row.memory_bytes),
            "command": row.runs[0]["command"],
            **(_published(c.target) if c.target else {}),
        }


def _published(target: Target) -> dict[str, object]:
    return {
        "metric": target.metric,
        "paper": target.value,
        "paper_sd": "" if target.spread is None else target.spread,
        "source": target.source,
        "certainty": target.certainty,
    }
