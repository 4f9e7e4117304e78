"""What the tests of real sweeps share: the runs, waiting for them, comparing them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

RECIPES = ("naive", "replay")
OPTIONS = ["--smoke", "--threads", "1", "--device", "cpu"]
EPOCHS = "train_epochs=6"  # an experience takes long enough to be killed in
SECONDS = 60


def finished(run: Path) -> int:
    """Number of experiences a run has finished."""
    path = run / "run.json"
    return json.loads(path.read_text())["experiences_finished"] if path.exists() else 0


def wait_for(run: Path, n: int) -> None:
    """Return once a run has finished so many experiences."""
    end = time.monotonic() + SECONDS
    while finished(run) < n:
        if time.monotonic() > end:
            raise TimeoutError(f"{run} has not finished {n} experiences in {SECONDS} s")
        time.sleep(0.02)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors within lists and dicts, in their order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def assert_same(run: Path, reference: Path) -> None:
    """Demand the figures, the log, and the weights of another run."""
    for name in ("accuracy.csv", "log.txt"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()
    ours, theirs = (json.loads((f / "run.json").read_text()) for f in (run, reference))
    for name in ("metrics", "options", "memory_bytes", "finished", "setting"):
        assert ours[name] == theirs[name]
    weights, theirs = (
        list(tensors(torch.load(f / "checkpoint.pt", weights_only=True)))
        for f in (run, reference)
    )
    assert len(weights) > 4  # weights and biases of the network at least
    assert all(torch.equal(*pair) for pair in zip(weights, theirs, strict=True))
