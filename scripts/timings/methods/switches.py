"""A method with each switch of `ResidentTemplate` beside itself without any."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from timings.measure import Figure
from timings.methods.compare import paired, second_experience, trained
from timings.methods.method import Frame, Method
from timings.methods.turns import in_turns

SWITCHES: dict[str, dict[str, Any]] = {
    "none": {},
    "channels_last": {"channels_last": True},
    "bf16": {"precision": "bf16"},
    "bf16+channels_last": {"precision": "bf16", "channels_last": True},
    "foreach": {"optimizer_implementation": "foreach"},
    "fused": {"optimizer_implementation": "fused"},
    "inference_mode": {"inference_mode": True},
    "compile": {"compile": True},
}


def gains(method: Method, frame: Frame, repeats: int) -> dict[str, Any]:
    """Measure each switch.

    Args:
        method: Which.
        frame: Its frame; its own switches count for all.
        repeats: Epochs of each side that count; the first, which compiles, does not.

    Returns:
        Seconds of all epochs by switch, and under ``"figures"`` how many times faster
        than without, as `Figure`.
    """
    runs = [
        trained(method.ours, replace(frame, switches={**frame.switches, **switch}))
        for switch in SWITCHES.values()
    ]
    loops = [second_experience(run, repeats + 1) for run in runs]
    epochs = dict(zip(SWITCHES, in_turns(loops, frame.device), strict=True))
    counted = {name: seconds[1:] for name, seconds in epochs.items()}
    first = epochs["compile"][0] - statistics.median(counted["compile"])
    figures = [
        Figure(
            name,
            paired(counted["none"], counted[name]),
            1,
            True,
            f"an epoch of {method.name} without, over one with {name}"
            + (f", compiled in {first:.0f} s before" if name == "compile" else ""),
        )
        for name in SWITCHES
        if name != "none"
    ]
    return {"method": method.name, "switch_seconds": epochs, "figures": figures}
