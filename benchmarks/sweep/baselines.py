"""Baselines in the frame of each run of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from benchmarks.names import UsageError, nearest
from benchmarks.runs.baseline_names import applicable
from benchmarks.sweep.jobs import Job


def choose_baselines(names: Sequence[str], job: Job) -> list[str]:
    """Choose the baselines of a run.

    Args:
        names: Those asked for; none: all that apply to the run.
        job: The run.

    Returns:
        Names of recipes, without that of the run itself.

    Raises:
        UsageError: If one is unknown or does not apply to the run.
    """
    fitting = applicable(job.options)
    for name in names:
        if name not in fitting:
            raise UsageError(
                f"baseline {name} does not apply to {job.title}; "
                f"{nearest(name, fitting)}"
            )
    return [name for name in names or fitting if name != job.folder.recipe]


def baseline_jobs(job: Job, names: Iterable[str], common: Sequence[str]) -> list[Job]:
    """Make the jobs of the baselines in the frame of a run.

    Args:
        job: The run.
        names: Recipes of the baselines.
        common: Words of the command line for all of them.

    Returns:
        A job for each, in ``<out>/<recipe>.baselines``.
    """
    out = job.folder.out / f"{job.folder.recipe}.baselines"
    like = ["--like", str(job.folder.path), *common]
    places = ["--seed", str(job.folder.seed), "--out", str(out), "--resume"]
    return [
        Job(
            command=["run", name, *like, *places],
            folder=replace(job.folder, out=out, recipe=name),
            title=f"{name} like {job.title}",
            after=job,
        )
        for name in names
    ]
