"""Kill real processes in the middle of the second experience, and resume them.

``python tests/kill_and_resume.py FOLDER`` runs every subject three times, each in a
process of its own: undisturbed, killed by SIGKILL, resumed. It leaves weights and
metrics of the first and the last in ``FOLDER/<subject>/{full,resumed}.pt``.
The host is imported once, and every process is a fork of that one.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

warnings.simplefilter("ignore")

from avalanche.core import SupervisedPlugin
from cases import toy_benchmark
from contract import weights
from subjects import SUBJECTS

from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint


class Killer(SupervisedPlugin):
    """Ends the process in the given iteration of the given experience."""

    def __init__(self, armed: bool) -> None:
        super().__init__()
        self.armed = armed

    def state_dict(self):
        """Nothing: the resumed process is not to be killed again."""
        return {}

    def load_state_dict(self, state, experiences):
        """Nothing."""

    def after_backward(self, strategy, **kwargs):
        """Strike in the fourth iteration of the second experience."""
        clock = strategy.clock
        if self.armed and (clock.train_exp_counter, clock.train_exp_iterations) == (
            1,
            3,
        ):
            os.kill(os.getpid(), signal.SIGKILL)


def train(subject: str, folder: Path, name: str, *, resume: bool, kill: bool) -> None:
    """One process's work: the rest of the toy stream, saving as it goes."""
    torch.manual_seed(0)
    benchmark = toy_benchmark()
    strategy = SUBJECTS[subject](plugins=[Killer(kill)])
    torch.manual_seed(1)
    path, start = folder / f"{name}-checkpoint.pt", 0
    if resume:
        start = load_checkpoint(path, strategy, benchmark.train_stream).n_experiences
        assert start == 1, f"resumed behind {start} experiences, wanted 1"
    for experience in benchmark.train_stream[start:]:
        strategy.train(experience)
        metrics = strategy.eval(benchmark.test_stream)
        save_checkpoint(path, strategy, benchmark.train_stream)
    result = {"weights": weights(strategy), "metrics": dict(metrics)}
    torch.save(result, folder / ("resumed.pt" if resume else "full.pt"))


def in_a_process(work: Callable[[], None]) -> int:
    """Exit status of a fork doing the work; negative: killed by that signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:  # a fork never returns into its parent's code
            if status:
                traceback.print_exc()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(root: Path) -> int:
    """All subjects; the number of those that did not behave."""
    torch.set_num_threads(1)  # a fork must not inherit a thread pool
    failures = 0
    for subject in SUBJECTS:
        folder = root / subject
        folder.mkdir(parents=True)
        steps = {
            "full": {"resume": False, "kill": False},
            "killed": {"resume": False, "kill": True},
            "resumed": {"resume": True, "kill": False},
        }
        for step, options in steps.items():
            name = "full" if step == "full" else "killed"
            status = in_a_process(
                lambda s=subject, f=folder, n=name, o=options: train(s, f, n, **o)
            )
            wanted = -signal.SIGKILL if step == "killed" else 0
            if status != wanted:
                print(f"{subject} {step}: status {status}, wanted {wanted}")
                failures += 1
    return failures


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
