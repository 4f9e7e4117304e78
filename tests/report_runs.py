"""Runs as they lie on disk, made up, for the tests of the report."""

from __future__ import annotations

import json

from matplotlib.figure import Figure

from benchmarks.runs.accuracy_matrix import paper_metrics
from benchmarks.runs.results import matrix_to_csv

MATRIX = [[0.9, None, None], [0.5, 0.8, None], [0.25, 0.5, 1.0]]


def lay_run(out, *, recipe="naive", seed=0, matrix=MATRIX, pictures=(), **changes):
    """Write run.json, accuracy.csv and pictures; returns the folder of the run."""
    n, tests = len(matrix), [100] * len(matrix[0])
    record = {
        "recipe": recipe,
        "seed": seed,
        "smoke": False,
        "finished": True,
        "experiences": n,
        "experiences_finished": n,
        "stream": "split_digits",
        "setting": f"split_digits, {n} experiences; small_cnn; 2 epochs",
        "note": "",
        "memory": "no memory",
        "options": {"lr": 0.1},
        "changed": [],
        "metrics": paper_metrics(matrix, tests),
        "further_metrics": [{} for _ in matrix],
        "test_images": tests,
        "memory_bytes": {"exemplars": 1000 * n},
        "memory_over_experiences": [{"exemplars": 1000 * (i + 1)} for i in range(n)],
        "peak_memory_bytes": {"ram": 10**9, "gpu": None},
        "minutes": 1.5,
        "command": f"python -m benchmarks run {recipe}",
        "resumed": 0,
        "commit": "0" * 40,
        "versions": {"torch": "2.14.1"},
        "hardware": {"device": "cpu", "gpu": None, "cpu": "AMD EPYC", "threads": 1},
    }
    changed = {**record, **changes}
    folder = out / str(changed["setting"]) / recipe / str(seed)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(changed), encoding="utf-8")
    (folder / "accuracy.csv").write_text(matrix_to_csv(matrix), encoding="utf-8")
    for name in pictures:
        (folder / "pictures").mkdir(exist_ok=True)
        Figure(figsize=(9, 2)).savefig(folder / "pictures" / f"{name}.png", dpi=150)
    return folder
