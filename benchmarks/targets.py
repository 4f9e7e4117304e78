"""The figures of the papers, and whether runs may be compared with them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGETS = Path(__file__).with_name("targets.csv")
TOLERANCE = 1.0
"""A mean within so many percentage points of the paper's figure reproduces it."""
FREE_OPTIONS = frozenset({"memory_resident", "channels_last", "compile"})
"""Options of recipes that change the speed and not the protocol."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One row of ``targets.csv``.

    Args:
        recipe: Name of the recipe.
        setting: What a run must have to be compared: options of the recipe or
            ``test_images`` (all of the stream), by name, as text.
        metric: A name among the ``metrics`` of ``run.json``.
        value: The paper's figure, in percent.
        source: Where it was printed.
        certainty: How sure it is, e.g. copied from another paper.
    """

    recipe: str
    setting: Mapping[str, str]
    metric: str
    value: float
    source: str
    certainty: str

    def fits(self, run: Mapping[str, Any]) -> bool:
        """Whether a run has the setting of this row.

        Args:
            run: Contents of a ``run.json``.

        Returns:
            True if it does, whatever its other options are.
        """
        facts = {**run["options"], "test_images": sum(run["test_images"])}
        same = (str(facts.get(name)) == v for name, v in self.setting.items())
        return run["recipe"] == self.recipe and all(same)


def read_targets(path: Path = TARGETS) -> list[Target]:
    """Read the figures of the papers.

    Args:
        path: A file with the columns recipe, setting (``name=value name=value``),
            metric, value, unit (``%``), source, certainty.

    Returns:
        One target a row.

    Raises:
        ValueError: If a unit is not ``%``.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return [_target(row) for row in csv.DictReader(file)]


def _target(row: Mapping[str, str]) -> Target:
    if row["unit"] != "%":
        raise ValueError(f"unit {row['unit']!r} in the table of targets, wanted '%'")
    return Target(
        recipe=row["recipe"],
        setting=dict(item.split("=", 1) for item in row["setting"].split()),
        metric=row["metric"],
        value=float(row["value"]),
        source=row["source"],
        certainty=row["certainty"],
    )


def verdict(run: Mapping[str, Any], target: Target | None, percent: float) -> str:
    """Say what a mean is worth beside the paper's figure.

    Args:
        run: Contents of a ``run.json``; one stands for all runs of the mean.
        target: A target that fits the run, if there is one.
        percent: Our mean of the target's metric.

    Returns:
        ``"unfinished"``, ``"scaled down"`` (``--smoke``,
        ``--images_per_class``), ``"no target"``, ``"other
        options"`` (something departs from the protocol), ``"reproduced"`` (within
        `TOLERANCE`) or ``"differs"``, with details where there are any.

    Example:
        >>> run = {"finished": True, "smoke": False, "changed": ["lr"],
        ...        "options": {"lr": 0.5}}
        >>> target = Target(recipe="x", setting={}, metric="final_accuracy", value=60.0,
        ...                 source="", certainty="")
        >>> verdict(run, target, 60.0)
        'other options: lr=0.5'
        >>> verdict({**run, "changed": []}, target, 57.5)
        'differs: -2.5'
    """
    if not run["finished"]:
        return f"unfinished: {run['experiences_finished']} of {run['experiences']}"
    if run["smoke"] or run["options"].get("images_per_class"):
        return "scaled down"
    if target is None:
        return "no target"
    free = FREE_OPTIONS.union(target.setting)
    other = [f"{n}={run['options'][n]}" for n in run["changed"] if n not in free]
    if other:
        return f"other options: {', '.join(other)}"
    difference = percent - target.value
    return (
        "reproduced" if abs(difference) <= TOLERANCE else f"differs: {difference:+.1f}"
    )
