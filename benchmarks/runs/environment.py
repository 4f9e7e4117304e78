"""Where a run takes place: versions, hardware, commit, memory. Stands beside each number."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = ("avalanche_ext", "avalanche-lib", "torch", "torchvision", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on.

    Returns:
        Version by name; ``"unknown"`` for a package that is not installed.
    """
    return {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def hardware(device: torch.device) -> dict[str, Any]:
    """The machine, and the device that trains.

    Args:
        device: The device of the run.

    Returns:
        ``device``, ``gpu`` (its name, or ``None``), ``cpu``, ``cores`` (those this
        process may use), ``threads`` (torch's), ``memory_bytes`` and ``system``.
    """
    import psutil
    import torch

    cuda = device.type == "cuda"
    return {
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
    }


def _cpu_name() -> str:
    """The name Linux gives the processor, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def commit() -> str | None:
    """The commit of the clone that runs, with ``+changes`` if files differ from it.

    Returns:
        The hash, or ``None`` outside a git clone, without git, or before a commit.
    """
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    return f"{head}+changes" if _git("status", "--porcelain", "-uno") else head


def _git(*arguments: str) -> str | None:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Most memory that this process has held so far, in bytes.

    Args:
        device: The device of the run.

    Returns:
        ``ram`` (``None`` where the system does not tell) and ``gpu`` (memory of
        tensors on ``device``; ``None`` on a CPU).
    """
    import torch

    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"ram": _peak_ram(), "gpu": gpu}


def _peak_ram() -> int | None:
    if sys.platform == "win32":  # it has no getrusage
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
