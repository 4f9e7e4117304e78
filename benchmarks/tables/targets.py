"""The figures of the papers, and whether runs may be compared with them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGETS = Path(__file__).parents[1] / "targets.csv"
TOLERANCE = 1.0
"""A mean within so many percentage points of the paper's figure reproduces it."""
FREE_OPTIONS = frozenset(
    {
        "memory_resident",
        "channels_last",
        "compile",
        "optimizer_implementation",
        "inference_mode",
        "num_workers",
        "stream_seed",
    }
)
"""Options of recipes that change the speed and not the protocol; and the seed of a
stream, over which papers average where they do not name the order of classes."""
CERTAINTIES = (
    "paper's table",
    "authors' files",
    "authors' README",
    "third party",
    "copied",
    "other protocol",
    "recalled",
)
"""Where a figure comes from, the surest first; the last two are never compared: measured
with other settings than the row's, or from memory."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One line of ``targets.csv``: one figure of a published row.

    Args:
        recipe: Name of the row, which is a recipe.
        metric: A name among the ``metrics`` of ``run.json``.
        value: The published figure, in percent.
        spread: Its standard deviation; ``None`` where none was given.
        seeds: Number of runs it is the mean of; ``None`` where not given.
        source: Where it was printed.
        certainty: One of `CERTAINTIES`.
    """

    recipe: str
    metric: str
    value: float
    spread: float | None = None
    seeds: int | None = None
    source: str
    certainty: str


def read_targets(path: Path = TARGETS) -> list[Target]:
    """Read the figures of the papers.

    Args:
        path: A file with the columns recipe, metric, value, spread, seeds, unit
            (``%``), source, certainty.

    Returns:
        One target a line.

    Raises:
        ValueError: If a unit is not ``%``, or a certainty unknown.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return [_target(row) for row in csv.DictReader(file)]


def _target(row: Mapping[str, str]) -> Target:
    if row["unit"] != "%":
        raise ValueError(f"unit {row['unit']!r} in the table of targets, wanted '%'")
    if row["certainty"] not in CERTAINTIES:
        raise ValueError(
            f"certainty {row['certainty']!r} in the table of targets, wanted one of "
            f"{', '.join(CERTAINTIES)}"
        )
    return Target(
        recipe=row["recipe"],
        metric=row["metric"],
        value=float(row["value"]),
        spread=float(row["spread"]) if row["spread"] else None,
        seeds=int(row["seeds"]) if row["seeds"] else None,
        source=row["source"],
        certainty=row["certainty"],
    )


def mark(run: Mapping[str, Any], target: Target | None, percent: float) -> str:
    """Say what a mean is worth beside the paper's figure.

    Args:
        run: Contents of a ``run.json``; one stands for all runs of the mean.
        target: A target of the run's recipe, if there is one.
        percent: Our mean of the target's metric.

    Returns:
        ``"unfinished"``, ``"scaled down"`` (``--smoke``, ``--images_per_class``, or
        a ``--note``, such as the name of stand-in images), ``"no target"``, ``"other
        options"`` (something departs from the protocol), ``"figure not comparable"``,
        ``"reproduced"`` (within `TOLERANCE`) or ``"differs"``, with details where there
        are any.

    Example:
        >>> run = {"finished": True, "smoke": False, "changed": ["lr"],
        ...        "options": {"lr": 0.5}}
        >>> target = Target(recipe="x", metric="final_accuracy", value=60.0,
        ...                 source="", certainty="paper's table")
        >>> mark(run, target, 60.0)
        'other options: lr=0.5'
        >>> mark({**run, "changed": []}, target, 57.5)
        'differs'
    """
    if not run["finished"]:
        return f"unfinished: {run['experiences_finished']} of {run['experiences']}"
    if run["smoke"] or run["options"].get("images_per_class") or run.get("note"):
        return "scaled down"
    if target is None:
        return "no target"
    changed = [name for name in run["changed"] if name not in FREE_OPTIONS]
    if changed:
        other = [f"{name}={run['options'][name]}" for name in changed]
        return f"other options: {', '.join(other)}"
    if target.certainty in CERTAINTIES[-2:]:
        return "figure not comparable"
    close = abs(percent - target.value) <= TOLERANCE
    return "reproduced" if close else "differs"
