"""The gradient through an inner loop, by recursion against one graph of it."""

from __future__ import annotations

from typing import Any

import torch

from timings.measure import Entry, median_ratio
from timings.memory import in_own_process, peak_bytes

N_EXEMPLARS, N_STEPS, BATCH, CHUNK = 100, 5, 128, 32
N_CHECKED = 40  # exemplars, and data, to compare gradients on; two chunks
TOLERANCE = 1e-9


def _problem(n: int, batch: int) -> dict[str, Any]:
    """ResNet-32 with statistics of noise, exemplars and one batch."""
    from avalanche_ext import CosineClassifier, FeatureClassifier, resnet32_cifar

    torch.manual_seed(0)
    model = FeatureClassifier(resnet32_cifar(), CosineClassifier(64, n_classes=10))
    with torch.no_grad():
        model(torch.randn(32, 3, 32, 32))
    x, e = torch.randn(batch, 3, 32, 32), torch.randn(n, 3, 32, 32)
    return {
        "model": model,
        "exemplars": e,
        "targets": torch.arange(n) % 10,
        "batches": [(x, torch.arange(batch) % 10)],
        "inner_lr": 0.01,
        "inner_steps": N_STEPS,
    }


def _on(device: torch.device, problem: dict[str, Any]) -> dict[str, Any]:
    """The problem on a device."""
    moved = {k: problem[k].to(device) for k in ("model", "exemplars", "targets")}
    batches = [(x.to(device), y.to(device)) for x, y in problem["batches"]]
    return {**problem, **moved, "batches": batches}


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _gradient(problem: dict[str, Any], mode: str) -> Any:
    from avalanche_ext.functional.unrolled import hypergradient

    found = hypergradient(**problem, mode=mode, chunk=CHUNK)  # type: ignore[arg-type]
    if found.gradient.is_cuda:
        torch.cuda.synchronize()
    return found.gradient


def _require_agreement() -> None:
    """The two gradients are the same.

    In float64: where rounding turns the sign of a ReLU's input the gradient jumps, so
    that in float32 a chunk's own rounding alone moves it by percents.
    """
    problem = _problem(N_CHECKED, N_CHECKED)
    x, y = problem["batches"][0]
    doubled = {k: problem[k].double() for k in ("model", "exemplars")}
    problem = _on(_device(), {**problem, **doubled, "batches": [(x.double(), y)]})
    unrolled, reverse = (_gradient(problem, mode) for mode in ("unrolled", "reverse"))
    error = float((reverse - unrolled).norm() / unrolled.norm())
    if not error <= TOLERANCE:
        raise RuntimeError(
            f"the gradients differ by {error:.1e} of their length; wanted at most "
            f"{TOLERANCE:g}"
        )


def duration(repeats: int) -> float:
    """Recursion over one graph."""
    _require_agreement()
    problem = _on(_device(), _problem(N_EXEMPLARS, BATCH))
    return median_ratio(
        lambda: _gradient(problem, "reverse"),
        lambda: _gradient(problem, "unrolled"),
        repeats,
    )


def _peak(mode: str) -> int:
    """Bytes above those of the process before, of which this is the only call."""
    device = _device()
    # what is loaded at the first call does not count
    _gradient(_on(device, _problem(1, 1)), mode)
    problem = _on(device, _problem(N_EXEMPLARS, BATCH))
    return peak_bytes(lambda: _gradient(problem, mode), device)


def memory(repeats: int) -> float:
    """Peak of one graph over that of the recursion, each in a process of its own."""
    _require_agreement()
    # the memory is the same at each repeat
    unrolled, reverse = (in_own_process(_peak, m) for m in ("unrolled", "reverse"))
    return float(unrolled / reverse)


_WHAT = (
    f"of the gradient in {N_EXEMPLARS} exemplars through {N_STEPS} steps (ResNet-32, "
    f"32 x 32, {BATCH} data)"
)

ENTRIES = (
    Entry(
        "hypergradient-time",
        f"time {_WHAT}, back by recursion in chunks, over one graph of all",
        1.2,
        False,
        duration,
    ),
    Entry(
        "hypergradient-memory",
        f"peak memory {_WHAT}, one graph of all over recursion in chunks",
        8,
        True,
        memory,
    ),
)
