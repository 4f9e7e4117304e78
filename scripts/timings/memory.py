"""Peak memory of what runs in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Callable
from typing import Any

import torch


def in_own_process(run: Callable[..., Any], *args: Any) -> Any:
    """Call a function where nothing ran before, with as many threads as here.

    Args:
        run: A function of a module.
        args: Its arguments.

    Returns:
        What it returns.
    """
    # inherited: Ctrl-C reaches both, and this process alone says so and ends the other
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        workers = multiprocessing.get_context("spawn").Pool(1)
    finally:
        signal.signal(signal.SIGINT, before)
    with workers as pool:
        return pool.apply(_quietly, (torch.get_num_threads(), run, args))


def _quietly(n_threads: int, run: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    warnings.filterwarnings("ignore")  # as in timing.py
    torch.set_num_threads(n_threads)
    return run(*args)


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """Most bytes held during a call, above those held before.

    Args:
        run: What is called; what is loaded at a first call should be loaded already.
        device: On a GPU its tensors count, else all memory of this process (Linux).

    Returns:
        Bytes.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak starts anew; that of getrusage is the parent's
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """Bytes that Linux counts of this process."""
    with open("/proc/self/status") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return 1024 * int(fields[name].split()[0])
