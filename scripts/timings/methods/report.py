"""Lines that say what was measured of a method."""

from __future__ import annotations

import statistics
from typing import Any

MB = 1e6


def lines(found: dict[str, Any]) -> list[str]:
    """Word the measurements of one method.

    Args:
        found: As `compare` gives it, with ``peak_bytes``.

    Returns:
        Lines to be printed.
    """
    names = {"ours": found["method"], "bare": "bare loop", "theirs": found["nearest"]}
    width = max(map(len, names.values())) + 2
    said = [f"{found['method']}: {found['what']}"]
    said.append(
        f"  {'':{width}}{'s/epoch':>9}{'new images/s':>14}{'peak MB':>9}  kept, MB"
    )
    for side, name in names.items():
        seconds = statistics.median(found["epoch_seconds"][side])
        kept = found["kept_bytes"].get(side, {})
        said.append(
            f"  {name:{width}}{seconds:9.3f}{found['new_images'] / seconds:14.0f}"
            f"{found['peak_bytes'][side] / MB:9.0f}  "
            + ", ".join(f"{kind} {n / MB:.2f}" for kind, n in kept.items())
        )
    share = found["outside"]
    said.append(
        "  time outside of forward, losses, backward and step: "
        f"{share['epoch']:.1%} of an epoch, {share['train']:.1%} of train() with "
        f"{share['epochs']} epochs ({share['around_seconds']:.2f} s around them)"
    )
    return [*said, *(f"  {figure}" for figure in found["figures"])]
