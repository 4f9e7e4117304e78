"""Sets that iterate in the same order after they were made anew."""

from __future__ import annotations

import random
from typing import Any


def insertion_order(items: set[Any], attempts: int = 3000) -> list[Any]:
    """Order in which to insert the items so that they come out as from this set.

    The order of a set depends on its history: where two numbers fall on the same slot
    of its table, the earlier one keeps it. Avalanche hands out the remainder of a
    replay memory in the order of a set of class ids, so that order is state. It is
    found by trial: what comes out too late is inserted earlier, or what stands in its
    place later.

    Args:
        items: The set.
        attempts: Trials, >= 0.

    Returns:
        The items; in the order of the set itself where no trial succeeds.

    Example:
        >>> items = set([8, 0])
        >>> list(items), list(set(insertion_order(items)))
        ([8, 0], [8, 0])
    """
    wanted = list(items)
    order, wrong = list(wanted), _misplaced(wanted, wanted)
    rng = random.Random(0)
    for _ in range(attempts if all(isinstance(i, int) for i in wanted) else 0):
        if not wrong:
            return order
        displacer, displaced = rng.choice(wrong)
        trial = list(order)
        move = rng.randrange(3)
        if move != 0:
            trial.remove(displaced)
            trial.insert(rng.choice([0, rng.randrange(1 + len(trial) // 2)]), displaced)
        if move != 1:
            trial.remove(displacer)
            trial.append(displacer)
        result = _misplaced(trial, wanted)
        if len(result) <= len(wrong):
            order, wrong = trial, result
    return order if not wrong else wanted


def _misplaced(order: list[Any], wanted: list[Any]) -> list[tuple[Any, Any]]:
    """(what comes out, what should) wherever the two differ."""
    return [(a, b) for a, b in zip(set(order), wanted, strict=True) if a != b]
