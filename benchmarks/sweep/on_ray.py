"""Runs of a sweep as tasks of a Ray cluster: one on this machine, or one that exists."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from benchmarks.names import UsageError
from benchmarks.sweep.executor import GRACE, Ending, last_words
from benchmarks.sweep.jobs import Job

CHECKOUT = Path(__file__).parents[2]
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # whatever its name says: a cluster of its own listens to this machine alone
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@dataclass(kw_only=True)
class OnRay:
    """A task for each run; Ray chooses where and when.

    A run takes place within the worker of its task, so that no process is left behind
    that could write beside the next attempt.

    Args:
        address: Of a cluster; None starts one on this machine.
        cpus: CPUs of a run.
        gpus: GPUs of a run; a fraction shares one. A run sees no others.
        out: Folder of all results, which all machines share.
    """

    address: str | None
    cpus: int
    gpus: float
    out: Path
    _tasks: dict[Any, Job] = field(default_factory=dict)
    _logs_before: dict[Job, int] = field(default_factory=dict)
    _token: Any = None

    def __enter__(self) -> None:
        """Connect, and let each machine show that it sees what this one sees."""
        self._connect()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._token = NamedTemporaryFile(prefix=".sweep-", dir=self.out)
            self._check_nodes()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        """Interrupt all runs, as Ctrl-C does, and leave the cluster."""
        import ray

        try:
            for task in self._tasks:
                ray.cancel(task)
            if self._tasks:
                tasks = list(self._tasks)
                ray.wait(tasks, num_returns=len(tasks), timeout=GRACE)
        finally:  # kills what is left
            ray.shutdown()
            self._tasks.clear()
            if self._token is not None:
                self._token.close()

    def __str__(self) -> str:
        """Where jobs run."""
        import ray

        have = ray.cluster_resources()
        where = "of this machine" if self.address is None else self.address
        return (
            f"on the Ray cluster {where}: {have.get('CPU', 0):g} CPUs, "
            f"{have.get('GPU', 0):g} GPUs; {self.cpus} and {self.gpus:g} a run"
        )

    @property
    def has_room(self) -> bool:
        """Always: Ray keeps what does not fit yet."""
        return True

    def start(self, job: Job) -> None:
        """Submit a job; Ray starts it in a fresh process where there is room."""
        import ray

        task = ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_calls=1, max_retries=0
        )(run_in_worker)
        self._logs_before[job] = _changed(job.log)
        words = list(job.command)
        reference = task.remote(words, job.log, Path.cwd(), self._token.name, self.gpus)
        self._tasks[reference] = job

    def running(self) -> Collection[Job]:
        """Jobs that said something since they were submitted."""
        return [
            j for j in self._tasks.values() if _changed(j.log) != self._logs_before[j]
        ]

    def ended(self) -> dict[Job, Ending]:
        """Jobs whose task has ended since the last call."""
        import ray

        if not self._tasks:
            return {}
        tasks = list(self._tasks)
        ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return {job: _ending(job, t) for t in ready for job in [self._tasks.pop(t)]}

    def _connect(self) -> None:
        own: dict[str, Any] = {}
        if self.address is None:
            os.environ.update(ENVIRONMENT)
            own = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
        import ray

        path = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {"PYTHONPATH": os.pathsep.join(path), "OMP_WAIT_POLICY": "PASSIVE"}
        try:
            ray.init(
                address=self.address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": variables},
                **own,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"no Ray cluster at {self.address or 'this machine'} "
                f"({_first_line(error)}); wanted one, or --jobs 1 to do without"
            ) from error

    def _check_nodes(self) -> None:
        """Refuse a cluster that cannot run a job, or does not see the folder."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        nodes = [node for node in ray.nodes() if node["Alive"]]
        able = [
            node
            for node in nodes
            if all(node["Resources"].get(k, 0) >= n for k, n in wanted.items())
        ]
        if not able:
            raise UsageError(
                f"--cpus is {self.cpus} and --gpus {self.gpus:g}; wanted no more than "
                f"one machine has, of {len(nodes)} in the Ray cluster"
            )
        for node in able:
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            look = ray.remote(num_cpus=0, max_retries=0)(sees)
            task = look.options(scheduling_strategy=place).remote(self._token.name)
            machine = f"machine {node['NodeManagerAddress']} of the cluster"
            try:
                seen = ray.get(task)
            except ray.exceptions.RayError as error:
                raise UsageError(
                    f"{machine} cannot load {CHECKOUT} ({_first_line(error)}); wanted "
                    "the same files and packages on all"
                ) from error
            if not seen:
                raise UsageError(
                    f"{machine} does not see what is in --out {self.out.absolute()}; "
                    "wanted a folder that all share"
                )


def sees(file: str) -> bool:
    """Tell whether this machine has a file; a task.

    Args:
        file: Name of the file.

    Returns:
        Whether it exists.
    """
    return Path(file).exists()


def run_in_worker(
    words: list[str], log: Path, folder: Path, token: str, gpus: float
) -> int:
    """Carry out a job; a task.

    Args:
        words: What stands after ``python -m benchmarks``.
        log: File of what the run has to say.
        folder: Working directory of the sweep.
        token: A file in the folder of all results.
        gpus: GPUs of the run; those are all it sees.

    Returns:
        Exit code of the run.

    Raises:
        FileNotFoundError: If this machine, which came later, does not share the folder.
    """
    from benchmarks.sweep.worker import carry_out

    if not sees(token):
        raise FileNotFoundError(f"{os.uname().nodename} does not share {token}")
    os.chdir(folder)
    if not gpus:  # Ray hides them no longer
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return carry_out(words, log)


def _changed(file: Path) -> int:
    """Time of the last change of a file, on whatever clock; 0 if there is no file."""
    with suppress(FileNotFoundError):
        return file.stat().st_mtime_ns
    return 0


def _ending(job: Job, task: Any) -> Ending:
    import ray

    try:
        code: int = ray.get(task)
    except ray.exceptions.RayError as error:  # its worker or its machine is gone
        return Ending(code=1, reason=_first_line(error))
    return Ending(code=code, reason=last_words(job) if code else "")


def _first_line(error: Exception) -> str:
    """What an error of Ray says, without the pages that follow."""
    text = str(getattr(error, "cause", None) or error).strip()
    return f"{type(error).__name__}: {text}".splitlines()[0]
