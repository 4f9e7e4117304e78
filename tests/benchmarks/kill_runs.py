"""Stop real runs in the middle of the second experience, and resume one of them.

``python tests/benchmarks/kill_runs.py FOLDER`` leaves results in ``FOLDER/full`` (never
stopped), ``FOLDER/SIGKILL`` (killed, then resumed), ``FOLDER/SIGTERM`` and
``FOLDER/SIGINT``, what they said in ``FOLDER/*.txt``, and prints their exit statuses.
The host is imported once, and every run is a fork of that one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

import benchmarks.runs.run  # noqa: F401
from avalanche_ext.strategies import LUCIR  # noqa: F401
from benchmarks.__main__ import main

RUN = ["run", "lucir_digits", "--smoke", "--train_epochs", "3", "--loggers", "text"]
SECONDS = 60


def start(arguments: list[str], said: Path) -> int:
    """Process id of a run that says what it has to say into a file."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # a fork never returns into its parent's code
        os._exit(status)


def wait_for_second_experience(run: Path) -> None:
    """Return once the second experience is in its second epoch."""
    log, end = run / "log.txt", time.monotonic() + SECONDS
    while time.monotonic() < end:
        text = log.read_text() if log.exists() else ""
        if "Epoch 0" in text.partition("training on experience 1")[2]:
            return
        time.sleep(0.002)
    raise TimeoutError(f"no second experience in {log} after {SECONDS} seconds")


def status_of(child: int) -> int:
    """Exit status of a process; negative: killed by that signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stop(number: signal.Signals, root: Path) -> int:
    """Start a run and stop it by a signal."""
    child = start([*RUN, "--out", str(root / number.name)], root / f"{number.name}.txt")
    try:
        wait_for_second_experience(root / number.name / "lucir_digits" / "0")
    finally:
        os.kill(child, number)
    return status_of(child)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a fork must not inherit a thread pool
    folder = Path(sys.argv[1])
    full = start([*RUN, "--out", str(folder / "full")], folder / "full.txt")
    statuses = {"full": status_of(full)}
    for one in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        statuses[one.name] = stop(one, folder)
    saved = json.loads((folder / "SIGKILL/lucir_digits/0/run.json").read_text())
    statuses["finished before SIGKILL"] = saved["experiences_finished"]
    resume = ["run", "lucir_digits", "--resume", "--out", str(folder / "SIGKILL")]
    statuses["resumed"] = status_of(start(resume, folder / "resumed.txt"))
    print(json.dumps(statuses))
