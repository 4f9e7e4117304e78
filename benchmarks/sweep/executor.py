"""What carries out the jobs of a sweep, and what it says of one that ended."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from benchmarks.sweep.jobs import Job

GRACE = 30.0
"""Seconds that a run has to stop before it is killed."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one attempt at a job ended.

    Args:
        code: Exit code of the run; 1 where it did not get as far as to have one.
        reason: What went wrong, in one line.
    """

    code: int
    reason: str = ""


class Executor(Protocol):
    """Carries out jobs beside this process. A context: nothing runs on after it."""

    def __enter__(self) -> None:
        """Make ready.

        Raises:
            UsageError: If that cannot be.
        """

    def __exit__(self, *_: object) -> None:
        """Stop all jobs, and wait for them; what they finished is saved."""

    def __str__(self) -> str:
        """Where jobs run, in a few words, for people."""

    @property
    def has_room(self) -> bool:
        """Whether another job may be started."""

    def start(self, job: Job) -> None:
        """Start a job.

        Args:
            job: One that is not running.
        """

    def running(self) -> Collection[Job]:
        """Jobs that have started and not ended."""

    def ended(self) -> dict[Job, Ending]:
        """Jobs that have ended since the last call; does not wait."""


def last_words(job: Job) -> str:
    """The last line of what a run said that tells why it failed.

    Args:
        job: The job.

    Returns:
        A line; commands that resume, which are indented, are no reasons.
    """
    if not job.log.exists():
        return "no word of why"
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line for line in lines if line.strip() and not line.startswith((" ", "$"))]
    return told[-1] if told else "no word of why"
