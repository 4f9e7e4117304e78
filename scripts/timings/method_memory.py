"""Memory of whole methods that grows with their data: ``timing.py --memory``.

Networks and mini-batches take as much however many images there are, so the peak is
measured on two sizes of data. What it grows by, less what the method keeps, says how
often images, or what is made of each, are held besides the data set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch

from timings.many_experiences import METHODS, Long
from timings.measure import Figure
from timings.memory import in_own_process, peak_bytes

MB = 1e6
LARGE = Long(n=2, n_images=9000, side=32, memory=2000)
SMALL = replace(LARGE, n_images=3000)
LOADED = Long(n=2, n_images=60, side=8, memory=20)
AT_MOST = 0.25
#: Hands freed tensors back to the system at once (glibc): else the peak is of heaps.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


class Memory(NamedTuple):
    """Bytes of one method.

    Attributes:
        data: Raw images of both training experiences, in memory before.
        kept: What `memory_bytes` counts after the second, by kind.
        peak: Most bytes of the process (on a GPU, of tensors) while both are trained,
            above those held before, images among them.
    """

    data: int
    kept: dict[str, int]
    peak: int

    @property
    def added(self) -> int:
        """Bytes kept besides the images: exemplars are rows of these."""
        return sum(n for kind, n in self.kept.items() if kind != "exemplars")


def measured(name: str, stream: Long) -> Memory:
    """Train a method on two experiences, in this process.

    Args:
        name: Of `METHODS`.
        stream: Its data.
    """
    from avalanche_ext.loaders import image_bytes
    from avalanche_ext.metrics.memory import memory_bytes

    strategy, benchmark = METHODS[name](stream)
    experiences = list(benchmark.train_stream)

    def train() -> None:
        for experience in experiences:
            strategy.train(experience)

    peak = peak_bytes(train, torch.device(stream.device))
    data = sum(image_bytes(each.dataset) for each in experiences)
    return Memory(data, memory_bytes(strategy), peak)


def _after_loading(name: str, stream: Long) -> Memory:
    """Libraries load and set themselves up at a first call, which does not count."""
    measured(name, LOADED)
    return measured(name, stream)


def run(names: Sequence[str], device: torch.device, out: Path) -> None:
    """Measure methods, each size in a process of its own; print and write the result.

    Args:
        names: Of `METHODS`.
        device: Where.
        out: JSON of it all.
    """
    from benchmarks.runs.environment import commit, hardware, versions

    os.environ |= MALLOC  # read when a process starts
    sizes = [replace(size, device=str(device)) for size in (SMALL, LARGE)]
    record = {
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(device),
        "streams": [asdict(size) for size in sizes],
    }
    found: dict[str, list[Memory]] = {}
    for name in names:
        found[name] = [in_own_process(_after_loading, name, size) for size in sizes]
        print(figure(name, *found[name]), flush=True)
        record["bytes"] = {n: [each._asdict() for each in b] for n, b in found.items()}
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def figure(name: str, small: Memory, large: Memory) -> Figure:
    """What the peak grows by for each byte of images.

    Args:
        name: Of the method.
        small: Its bytes on few images.
        large: The same on many.
    """
    grown = (large.peak - large.added) - (small.peak - small.added)
    kept = ", ".join(f"{kind} {n / MB:.2f}" for kind, n in large.kept.items())
    return Figure(
        name,
        grown / (large.data - small.data),
        AT_MOST,
        False,
        f"bytes a byte of images; peak {large.peak / MB:.0f} MB above the start with "
        f"{large.data / MB:.0f} MB of images, {small.peak / MB:.0f} MB with "
        f"{small.data / MB:.0f} MB; kept, MB: {kept or 0}",
    )
