"""What a person sees of a sweep: bars in a terminal, a line an experience elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from benchmarks.sweep.jobs import Job


class Display:
    """Bars of the whole sweep and of each run under way. A context: they are shown in it.

    Args:
        n_jobs: Number of all jobs.
        n_finished: Of those that were finished before.
    """

    def __init__(self, *, n_jobs: int, n_finished: int) -> None:
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
        )
        self.bars = Progress(
            *columns, console=self.console, disable=not self.console.is_terminal
        )
        self.whole = self.bars.add_task("runs", total=n_jobs, completed=n_finished)
        self.tasks: dict[Job, Any] = {}
        self.seen: dict[Job, int] = {}

    def __enter__(self) -> None:
        """Show the bars."""
        self.bars.start()

    def __exit__(self, *_: object) -> None:
        """Leave them as they are."""
        self.bars.stop()

    def say(self, text: str) -> None:
        """Print a line, above the bars if there are any.

        Args:
            text: The line.
        """
        self.console.print(text)

    def begin(self, job: Job) -> None:
        """Note how far a job is before it is started.

        Args:
            job: The job.
        """
        self.seen[job] = read_progress(job).get("experiences_finished", 0)

    def update(self, running: Iterable[Job], *, n_ended: int) -> None:
        """Show how far all are.

        Args:
            running: Jobs under way.
            n_ended: Number of jobs that will not be started any more.
        """
        running = list(running)
        for job in self.tasks.keys() - set(running):
            self.bars.remove_task(self.tasks.pop(job))
        for job in running:
            self.look(job)
        self.bars.update(self.whole, completed=n_ended)

    def look(self, job: Job) -> None:
        """Show how far one is.

        Args:
            job: The job; under way, or just ended.
        """
        record = read_progress(job)
        n, of = record.get("experiences_finished", 0), record.get("experiences")
        if job not in self.tasks:
            self.tasks[job] = self.bars.add_task(job.title, total=None)
        self.bars.update(self.tasks[job], completed=n, total=of)
        if n > self.seen[job]:
            self.seen[job] = n
            if not self.console.is_terminal:
                percent = 100 * record["metrics"]["final_accuracy"]
                self.say(f"{job.title}: experience {n} of {of}: {percent:.1f} %")


def read_progress(job: Job) -> Mapping[str, Any]:
    """Read what a run has written so far.

    Args:
        job: The job.

    Returns:
        Its ``run.json``; empty if there is none yet.
    """
    with suppress(FileNotFoundError):
        text = (job.folder.path / "run.json").read_text(encoding="utf-8")
        record: dict[str, Any] = json.loads(text)
        return record
    return {}
