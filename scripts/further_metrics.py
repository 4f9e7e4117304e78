"""Further metrics (``--metrics``) of finished runs: mean ± deviation over the seeds.

The values are those at the end of one experience, as ``run.json`` holds them::

    python scripts/further_metrics.py results/split_mnist relative cosine --experience 2
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev


def main() -> None:
    """Print a line for each folder of runs that differ in their seeds only."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of results")
    parser.add_argument("parts", nargs="+", help="last parts of the metrics' names")
    parser.add_argument("--experience", type=int, required=True, help="from 1 on")
    options = parser.parse_args()
    if options.experience < 1:
        parser.error(f"--experience is {options.experience}; wanted at least 1")
    runs = defaultdict(list)
    for path in sorted(options.folder.rglob("run.json")):
        row = path.parents[1].as_posix()  # above the folders of the seeds
        values = json.loads(path.read_text(encoding="utf-8")).get("further_metrics", [])
        for name, value in dict(*values[options.experience - 1 :][:1]).items():
            runs[row, name.rpartition("/")[2]].append(value)
    if not runs:
        parser.error(
            f"no further metrics in {options.folder}; wanted runs of --metrics"
        )
    width = max(len(row) for row, _ in runs)
    for row in dict.fromkeys(row for row, _ in runs):
        cells = (f"{part} {spread(runs[row, part], 3)}" for part in options.parts)
        print(f"{row:{width}}  {'  '.join(cells)}")


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± sample deviation, with so many decimals; ``"-"`` without values."""
    if not values:
        return "-"
    deviation = stdev(values) if len(values) > 1 else 0
    return f"{mean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    main()
