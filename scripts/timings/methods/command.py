"""``timing.py --method``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from timings.entries import ENTRIES
from timings.methods.compare import compare, peaks
from timings.methods.method import Frame, Method
from timings.methods.report import lines
from timings.methods.switches import gains
from timings.methods.trace import trace

N_BATCHES = {"cpu": 4, "cuda": 20}  # an epoch takes about a second


def run(
    methods: Sequence[Method],
    device: torch.device,
    repeats: int,
    out: Path,
    profiles: Path | None = None,
    *,
    switches: bool = False,
) -> None:
    """Measure methods, one after the other; print and write what was found.

    Args:
        methods: Which.
        device: Where.
        repeats: Turns of each side.
        out: JSON of it all.
        profiles: Folder of their profiles; None: none.
        switches: Measure those of `ResidentTemplate` instead.
    """
    from benchmarks.runs.environment import commit, hardware, versions

    record: dict[str, Any] = {
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(device),
        "repeats": repeats,
        "methods": [],
    }
    frame = Frame(device, N_BATCHES[device.type])
    for method in methods:
        if switches:
            found = gains(method, frame, repeats)
            said = [f"{method.name}: {method.what}", *map(str, found["figures"])]
        else:
            found = compare(method, frame, repeats)
            found["peak_bytes"] = peaks(method.name, frame)
            slow = [entry for entry in ENTRIES if entry.name in method.slow]
            found["figures"] += [entry.figure(repeats) for entry in slow]
            said = lines(found)
        print("\n".join(["", *said]), flush=True)
        if profiles is not None:
            print("\n".join(trace(method, frame, profiles)), flush=True)
        found["figures"] = [
            {**figure._asdict(), "reached": figure.reached}
            for figure in found["figures"]
        ]
        record["methods"].append(found)
        # after each method: what is measured is not lost
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
