"""Train in two processes that share a group, and once alone with all the data.

``python tests/two_processes.py FOLDER`` leaves what each of the three saw in
``FOLDER/{alone,0,1}.pt``: offsets and averaged gradients of each step. The host is
imported once, and every process is a fork of that one.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

warnings.simplefilter("ignore")

from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from torch import nn
from torch.utils.data import TensorDataset

from avalanche_ext.models import FeatureClassifier
from avalanche_ext.plugins import BDRPlugin, CwDPlugin

RANKS = 2


class Watcher(SupervisedPlugin):
    """Notes offsets and the gradient, averaged as data-parallel training does."""

    def __init__(self, plugin: BDRPlugin) -> None:
        super().__init__()
        self.plugin = plugin
        self.offsets, self.gradients = [], []

    def after_backward(self, strategy, **kwargs):
        """Note them."""
        self.offsets.append(self.plugin.offsets(strategy.mb_output))
        gradient = torch.cat([p.grad.flatten() for p in strategy.model.parameters()])
        if dist.is_initialized():
            dist.all_reduce(gradient)
            gradient /= RANKS
        self.gradients.append(gradient)


def stream(rank: int | None):
    """Two classes, then four, unevenly many; every second image for a rank."""
    rng, sets = torch.Generator().manual_seed(0), []
    for counts in ([16, 16], [4, 6, 20, 18]):
        y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        y = y[torch.randperm(len(y), generator=rng)]
        x = torch.randn(len(y), 6, generator=rng) + y[:, None]
        rows = slice(None) if rank is None else slice(rank, None, RANKS)
        data = TensorDataset(x[rows], y[rows])
        data.targets = y[rows].tolist()
        sets.append(as_classification_dataset(data))
    return benchmark_from_datasets(train=sets).train_stream


def train(rank: int | None, path: Path) -> None:
    """Two experiences; weights stay, so that the data decide alone."""
    torch.manual_seed(0)
    model = FeatureClassifier(nn.Linear(6, 5), nn.Linear(5, 4))
    adjust, decorrelate = BDRPlugin(), CwDPlugin(1.0, experiences="all")
    watcher = Watcher(adjust)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        train_mb_size=16 if rank is None else 16 // RANKS,
        plugins=[adjust, decorrelate, watcher],
        evaluator=None,
    )
    for experience in stream(rank):
        strategy.train(experience, shuffle=False)
    torch.save({"offsets": watcher.offsets, "gradients": watcher.gradients}, path)


def refuses_last_class() -> bool:
    """Whether the form that has no meaning over several processes is refused."""
    model = FeatureClassifier(nn.Linear(6, 5), nn.Linear(5, 4))
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        plugins=[BDRPlugin(dispersion_weights="last_class")],
        evaluator=None,
    )
    try:
        strategy.train(stream(0)[0])
    except ValueError as error:
        return "'last_class' in 2 processes" in str(error)
    return False


def in_group(rank: int, folder: Path) -> None:
    """The work of one process of the group."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=RANKS
    )
    train(rank, folder / f"{rank}.pt")
    assert refuses_last_class()
    dist.destroy_process_group()


def fork(work: Callable[[], None]) -> int:
    """Start the work in a process of its own; returns its number."""
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
    return child


def main(folder: Path) -> int:
    """All three; the number of processes that failed."""
    torch.set_num_threads(1)  # a fork must not inherit a thread pool
    train(None, folder / "alone.pt")
    children = [fork(lambda r=r: in_group(r, folder)) for r in range(RANKS)]
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
