"""Carry out the jobs of a sweep: start, watch, try again, and say how it went."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT

from benchmarks.runs.stopping import sigterm_interrupts
from benchmarks.sweep.executor import Ending, Executor
from benchmarks.sweep.jobs import Job
from benchmarks.sweep.progress import Display, read_progress

LOOK = 0.2
"""Seconds between two looks at the jobs."""
WRONG_USE = 2
"""Exit code of a command that cannot be carried out as given."""


def sweep(jobs: Sequence[Job], executor: Executor, *, retries: int, out: Path) -> int:
    """Carry out all jobs that are not finished.

    Args:
        jobs: The jobs; none of them is running.
        executor: What carries them out.
        retries: How often a job that failed is tried again.
        out: Folder of all results.

    Returns:
        Exit code: 0; 1 if a job failed; 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        UsageError: If the executor cannot be made ready.
    """
    finished = [job for job in jobs if job.folder.is_finished]
    state = State(
        waiting=[job for job in jobs if not job.folder.is_finished],
        finished=list(finished),
    )
    try:
        if state.waiting:
            # in this order, as Ray takes SIGTERM for itself
            with executor, sigterm_interrupts():
                n = len(state.waiting)
                print(f"{n} run{'s' if n != 1 else ''}, {executor}", flush=True)
                display = Display(n_jobs=len(jobs), n_finished=len(finished))
                with display:
                    state.carry_out(executor, display, retries=retries)
    except KeyboardInterrupt as stop:
        print(
            "\nstopped; what was finished is saved, and the same command goes on",
            file=sys.stderr,
        )
        return 128 + (stop.args[0] if stop.args else SIGINT)
    print_summary(state, n_before=len(finished), out=out)
    return 1 if state.failed else 0


@dataclass(kw_only=True)
class State:
    """How far a sweep is.

    Args:
        waiting: Jobs to start.
        finished: Jobs with nothing left to do.
        failed: Why others have failed for good.
    """

    waiting: list[Job]
    finished: list[Job] = field(default_factory=list)
    failed: dict[Job, str] = field(default_factory=dict)
    attempts: Counter[Job] = field(default_factory=Counter)

    def carry_out(self, executor: Executor, display: Display, *, retries: int) -> None:
        """Go on until nothing waits and nothing runs.

        Args:
            executor: What carries jobs out.
            display: Where to show it.
            retries: How often a job that failed is tried again.
        """
        active: set[Job] = set()
        while self.waiting or active:
            self._start(executor, display, active)
            for job, ending in executor.ended().items():
                active.remove(job)
                display.look(job)
                self._end(job, ending, display, retries=retries)
            n_ended = len(self.finished) + len(self.failed)
            display.update(executor.running(), n_ended=n_ended)
            time.sleep(LOOK)

    def _start(self, executor: Executor, display: Display, active: set[Job]) -> None:
        for job in list(self.waiting):
            if job.after in self.failed:
                self.waiting.remove(job)
                self.failed[job] = f"not started, as {job.after.title} failed"
            elif executor.has_room and (
                job.after is None or job.after in self.finished
            ):
                self.waiting.remove(job)
                active.add(job)
                display.begin(job)
                executor.start(job)

    def _end(self, job: Job, ending: Ending, display: Display, *, retries: int) -> None:
        if ending.code == 0:
            self.finished.append(job)
            display.say(f"{job.title}: finished")
            return
        self.attempts[job] += 1
        if ending.code == WRONG_USE or self.attempts[job] > retries:
            self.failed[job] = ending.reason
            display.say(f"{job.title}: failed: {ending.reason}")
        else:
            n = read_progress(job).get("experiences_finished", 0)
            display.say(
                f"{job.title}: {ending.reason}; trying again after experience {n}"
            )
            self.waiting.insert(0, job)


def print_summary(state: State, *, n_before: int, out: Path) -> None:
    """Say how a sweep went, and what to do now.

    Args:
        state: How it ended.
        n_before: Number of jobs that were finished before it.
        out: Folder of all results.
    """
    print(
        f"{len(state.finished) - n_before} finished, {n_before} were finished already, "
        f"{len(state.failed)} failed"
    )
    for job, reason in state.failed.items():
        print(f"  {job.title}: {reason}\n    {job.log}")
    if state.finished:
        words = ["python", "-m", "benchmarks", "table", str(out)]
        print(f"the table of results:\n  {shlex.join(words)}", flush=True)
