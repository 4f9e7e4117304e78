"""Time, accuracy and memory of whole runs, as a table of Markdown.

    python scripts/published_runs.py results/published_runs

minutes: training and evaluation; trained: training alone; kept: what the method keeps
besides the network; peak: most memory of the process, and of tensors on the GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.names import UsageError
from benchmarks.tables.as_markdown import table_of
from benchmarks.tables.rows import Row, read_rows, size, spread

HEADS = (
    "recipe",
    "stream; network; epochs",
    "experiences",
    "minutes",
    "trained",
    "final",
    "average",
    "kept",
    "peak",
    "peak on GPU",
    "hardware",
)


def main() -> None:
    """Print a line for each group of runs that differ in their seeds only."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders of results")
    try:
        rows = read_rows(parser.parse_args().folders, targets=[])
    except UsageError as error:
        parser.error(str(error))
    print(table_of(HEADS, [_cells(row) for row in rows]))


def _cells(row: Row) -> list[str]:
    run = row.runs[0]
    peak: dict[str, Any] = run.get("peak_memory_bytes", {})
    seconds = run.get("train_seconds")
    return [
        f"`{row.recipe}`",
        row.setting,
        f"{run['experiences_finished']} of {run['experiences']}",
        f"{row.minutes:.2f}",
        "-" if seconds is None else f"{seconds / 60:.2f}",
        spread(row.percent("final_accuracy")),
        spread(row.percent("average_incremental_accuracy")),
        size(row.memory_bytes),
        size(peak.get("ram")),
        size(peak.get("gpu")),
        row.hardware,
    ]


if __name__ == "__main__":
    main()
