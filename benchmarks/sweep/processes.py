"""Runs of a sweep as processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.sweep.executor import GRACE, Ending, last_words
from benchmarks.sweep.jobs import Job

CHECKOUT = Path(__file__).parents[2]


@dataclass(kw_only=True)
class Processes:
    """Some processes at once, each a run in a session of its own.

    Ctrl-C in a terminal thus reaches the sweep alone, which then stops its runs. They
    also stop when it dies without a word: see ``worker``.

    Args:
        n_slots: Most runs at once; >= 1.
        python: The interpreter.
        why: Why it is not Ray.
    """

    n_slots: int = 1
    python: str
    why: str = ""
    _children: dict[Job, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> None:
        """Nothing has to be made ready."""

    def __exit__(self, *_: object) -> None:
        """Ask all runs to stop, kill those that take too long."""
        try:
            for child in self._children.values():
                child.terminate()
            for child in self._children.values():
                with suppress(subprocess.TimeoutExpired):
                    child.wait(GRACE)
        finally:  # also when the person has no patience
            for child in self._children.values():
                _clear(child)
            self._children.clear()

    def __str__(self) -> str:
        """Where jobs run."""
        many = "one after the other" if self.n_slots == 1 else f"{self.n_slots} at once"
        return f"{many} on this machine{self.why}"

    @property
    def has_room(self) -> bool:
        """Whether fewer runs than wanted are under way."""
        return len(self._children) < self.n_slots

    def start(self, job: Job) -> None:
        """Start the process of a job."""
        path = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            self._children[job] = subprocess.Popen(
                [self.python, "-m", "benchmarks.sweep.worker", job.log, *job.command],
                stdin=subprocess.PIPE,
                stdout=log,  # of what does not pass through Python
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            )

    def running(self) -> Collection[Job]:
        """All jobs that have a process."""
        return self._children.keys()

    def ended(self) -> dict[Job, Ending]:
        """Jobs whose process has ended since the last call."""
        codes = {job: child.poll() for job, child in self._children.items()}
        found = {
            job: _ending(job, code) for job, code in codes.items() if code is not None
        }
        for job in found:
            _clear(self._children.pop(job))
        return found


def _ending(job: Job, code: int) -> Ending:
    if code < 0:  # by a signal, so without a word
        return Ending(code=1, reason=f"killed by {signal.Signals(-code).name}")
    return Ending(code=code, reason=last_words(job) if code else "")


def _clear(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and of those that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        child.stdin.close()
