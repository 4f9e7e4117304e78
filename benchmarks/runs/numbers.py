"""Which numbers options take, beyond the types of jsonargparse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jsonargparse.typing import restricted_number_type

from benchmarks.names import UsageError
from benchmarks.runs.options import LARGEST_SEED

Seed = restricted_number_type("Seed", int, [(">=", 0), ("<=", LARGEST_SEED)])


def refuse_infinite(values: Mapping[str, Any]) -> None:
    """Refuse infinity, which is larger than 0 and so passes as a positive number.

    Args:
        values: Value by name of an option.

    Raises:
        UsageError: If one is infinite or NaN.
    """
    for name, value in values.items():
        items = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, float) and not math.isfinite(item) for item in items):
            raise UsageError(f"--{name} is {value}; wanted a finite number")
