"""Accuracies of the linear classifier and of the nearest exemplar mean, over the seeds.

Of runs with ``--metrics nearest_exemplar_mean``, by data set and setting; the average is
that over all experiences of the accuracy over all classes seen, the last that after the
last one::

    python scripts/both_classifiers.py results/mnemonics

In percent, with what each seed gained over herding; bytes are those of the exemplars.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from further_metrics import spread

NAMES = ("linear average", "linear last", "nearest average", "nearest last")


def main() -> None:
    """Print a line for each folder of runs that differ in their seeds only."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of results")
    options = parser.parse_args()
    rows: dict[str, dict[int, list[float]]] = {}
    memory: dict[str, int] = {}
    for path in sorted(options.folder.rglob("run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if figures := _figures(record):
            row = path.parents[2].name
            rows.setdefault(row, {})[record["seed"]] = figures
            memory[row] = record["memory_bytes"].get("exemplars", 0)
    if not rows:
        parser.error(
            f"no accuracies in {options.folder}; wanted runs of --metrics "
            "nearest_exemplar_mean"
        )
    for row, runs in rows.items():
        herding = rows.get(f"{row.split('_')[0]}_herding", {})
        seeds = [seed for seed in runs if seed in herding]
        cells = []
        for i, name in enumerate(NAMES):
            cell = f"{name} {spread([f[i] for f in runs.values()], 1)}"
            if seeds and runs is not herding:
                gained = spread([runs[s][i] - herding[s][i] for s in seeds], 1)
                cell += f" ({gained})"
            cells.append(cell)
        print(row, f"{memory[row]:,} bytes", f"{len(runs)} seeds", *cells, sep="  ")


def _figures(record: dict[str, Any]) -> list[float]:
    """Average and last of either classifier, in percent; empty without them."""
    linear = record["metrics"].get("accuracy_over_experiences", [])
    prefix = "NearestMean_Acc_Stream/"
    nearest = [
        value
        for each in record.get("further_metrics", [])
        for name, value in each.items()
        if name.startswith(prefix)
    ]
    if not linear or not nearest or not record["finished"]:
        return []
    return [100 * v for v in (mean(linear), linear[-1], mean(nearest), nearest[-1])]


if __name__ == "__main__":
    main()
