"""``timing.py --experiences``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from timings.experiences import (
    SKIPPED,
    TARGET,
    WINDOW,
    Experience,
    growth,
    measured,
)
from timings.many_experiences import Long

PARTS = tuple(Experience.__dataclass_fields__)
Columns = dict[str, list[float]]


def run(
    names: Sequence[str], stream: Long, out: Path, curve: Path | None = None
) -> None:
    """Measure methods, one after the other; print and write what was found.

    Args:
        names: Of `METHODS`.
        stream: What experiences.
        out: JSON of it all.
        curve: Picture of the growth, its format by its ending; None: none.
    """
    from benchmarks.runs.environment import commit, hardware, versions

    device = torch.device(stream.device)
    record: dict[str, Any] = {
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(device),
        "stream": {**asdict(stream), "device": str(device)},
        "milliseconds": {},
    }
    print(
        f"{stream.n} experiences of {stream.n_images} images, {stream.side} x "
        f"{stream.side}: ms each, medians; in brackets the last {WINDOW} over the "
        f"first {WINDOW}"
    )
    print(f"{'':14}" + "".join(f"{part:>19}" for part in PARTS))
    for name in names:
        rows = [asdict(one) for one in measured(name, stream)]
        columns: Columns = {part: [row[part] for row in rows] for part in PARTS}
        record["milliseconds"][name] = columns
        print(line(name, columns), flush=True)
        out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    if curve is not None:
        draw(record["milliseconds"], curve)


def line(name: str, columns: Columns) -> str:
    """What was found of a method, in words.

    Args:
        name: Of the method.
        columns: Milliseconds of each experience, by part.
    """
    medians = {part: statistics.median(columns[part][SKIPPED:]) for part in PARTS}
    cells = [
        f"{medians[part]:9.1f} ({growth(columns[part]):5.2f}x)"
        if medians[part]
        else f"{0:9.1f}{'':9}"
        for part in PARTS
    ]
    verdict = "reached" if medians["rest"] < TARGET else "MISSED"
    return f"{name:14}{' '.join(cells)}  rest < {TARGET:g}: {verdict}"


def draw(found: dict[str, Columns], path: Path) -> None:
    """Draw the rest of each experience, one line a method.

    Args:
        found: Milliseconds of each experience, by method and part.
        path: Of a picture, its format by its ending.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, columns in found.items():
        rest = columns["rest"][SKIPPED:]
        axes.plot(range(SKIPPED, SKIPPED + len(rest)), rest, label=name, lw=1)
    axes.axhline(TARGET, color="0.5", ls=":", lw=1)
    axes.set(xlabel="experience", ylabel="ms beside arithmetic", yscale="log")
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path)
