"""Average accuracy and forgetting, with the experience known and unknown, over the seeds.

Of runs with ``--metrics task_recognition``::

    python scripts/task_accuracies.py results/task_recognition

Accuracies are means over the experiences after the last one; forgetting is the mean over
all but the last of how far an experience's accuracy fell from its best. In percent.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from further_metrics import spread

KINDS = ("TaskAware", "TaskAgnostic", "TaskRecognition")


def main() -> None:
    """Print a line for each folder of runs that differ in their seeds only."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of results")
    options = parser.parse_args()
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for path in sorted(options.folder.rglob("run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        history = record.get("further_metrics", [])
        if figures := [f for kind in KINDS for f in _figures(history, kind)]:
            rows[path.parents[1].as_posix()].append(figures)
    if not rows:
        parser.error(
            f"no accuracies in {options.folder}; wanted runs of --metrics "
            "task_recognition"
        )
    names = [f"{kind} {word}" for kind in KINDS for word in ("average", "forgets")]
    for row, runs in rows.items():
        figures = (spread(values, 1) for values in zip(*runs, strict=True))
        print(
            row, *(f"{n} {f}" for n, f in zip(names, figures, strict=False)), sep="  "
        )


def _figures(history: list[Any], kind: str) -> list[float]:
    """Average and forgetting after the last experience, in percent."""
    pattern = re.compile(rf"{kind}_Acc_Exp/.*/Exp(\d+)")
    matrix = [
        {int(m[1]): 100 * v for k, v in each.items() if (m := pattern.match(k))}
        for each in history
    ]
    if not matrix or not matrix[-1]:
        return []
    last = matrix[-1]
    drops = [max(row[e] for row in matrix[e:-1]) - last[e] for e in list(last)[:-1]]
    return [mean(last.values()), mean(drops) if drops else 0.0]


if __name__ == "__main__":
    main()
