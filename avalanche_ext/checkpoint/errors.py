"""The one error of saving and resuming."""

from __future__ import annotations


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read, or put into this strategy.

    Example:
        >>> str(CheckpointError("run.pt is no file; wanted a checkpoint"))
        'run.pt is no file; wanted a checkpoint'
    """
