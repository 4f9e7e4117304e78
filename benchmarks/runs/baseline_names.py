"""Which recipes are baselines, and which of them can follow a run.

Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.runs.same_frame import FRAME, taken_over

BASELINES = (
    "naive",
    "joint",
    "replay",
    "ewc",
    "lwf",
    "icarl",
    "der",
    "avalanche_ar1",
)
"""Recipes of Avalanche's own strategies, which the methods are compared with."""


def applicable(options: Mapping[str, Any]) -> list[str]:
    """Which baselines can be run in the frame of a run.

    Each recipe says itself what it cannot do, before any work.

    Args:
        options: All of the run, by name.

    Returns:
        Those of ``BASELINES`` that do not refuse its frame, in their order.

    Example:
        >>> applicable({"stream": "split_digits", "task_labels": True})
        ['naive', 'joint', 'replay', 'ewc']
    """
    return [name for name in BASELINES if _accepts(name, options)]


def _accepts(name: str, options: Mapping[str, Any]) -> bool:
    recipe = RECIPES[name]
    try:
        recipe.setup(**taken_over(name, options, known=FRAME))
    except UsageError:
        return False
    return True
