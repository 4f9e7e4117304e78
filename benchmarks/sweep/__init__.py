"""``python -m benchmarks sweep``: recipes x overrides x seeds, on Ray or one by one."""

from benchmarks.sweep.command import main

__all__ = ["main"]
