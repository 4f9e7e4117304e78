"""Speed of this package as ratios, each measured in one run on this machine.

Each figure compares ours with Avalanche's own path (or a bare PyTorch loop) on the same
generated data and the same model. The two take turns, and medians are compared, so that
a busy machine slows both alike::

    python scripts/timing.py                      # everything
    python scripts/timing.py --only loader --repeats 9

A new figure is one more `Entry` in ``ENTRIES``.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import transforms as T
from torchvision.datasets import CIFAR10

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PLAIN = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])
AUGMENTED = T.Compose([T.RandomCrop(32, 4), T.RandomHorizontalFlip(), PLAIN])
BATCH = 128


@dataclass(frozen=True)
class Entry:
    """One figure.

    Attributes:
        name: As in ``--only``.
        what: Numerator and denominator of the figure, in words.
        target: What it should reach.
        at_least: Whether more is better; otherwise less is.
        measure: From the number of repeats to the figure.
        unit: Of the figure; a ratio has "x".
    """

    name: str
    what: str
    target: float
    at_least: bool
    measure: Callable[[int], float]
    unit: str = "x"

    def row(self, repeats: int) -> tuple[str, ...]:
        """Measure, and word the outcome."""
        figure = self.measure(repeats)
        reached = figure >= self.target if self.at_least else figure <= self.target
        sign = ">=" if self.at_least else "<="
        return (
            self.name,
            f"{figure:.2f}{self.unit}",
            f"{sign} {self.target:g}{self.unit}",
            "reached" if reached else "MISSED",
            self.what,
        )


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_ratio(
    run: Callable[[], Any], reference: Callable[[], Any], repeats: int
) -> float:
    """Time of ``run`` over time of ``reference``: taking turns, medians, one warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for which, each in zip(times, (run, reference), strict=True):
            taken = seconds(each)
            if repeat:
                which.append(taken)
    return statistics.median(times[0]) / statistics.median(times[1])


class Noise(CIFAR10):
    """Random images in the class of CIFAR-10, so that the host treats them alike."""

    def __init__(self, n: int) -> None:
        """Draw n images of 32x32."""
        pixels = np.random.RandomState(0).randint(0, 256, (n, 3, 32, 32), np.uint8)
        self.data = pixels.transpose(0, 2, 3, 1)
        self.targets = [i % 10 for i in range(n)]
        self.transform = self.target_transform = None


def benchmark(n: int, transform: Any) -> Any:
    """One experience of n images, as the classic benchmarks make theirs."""
    from avalanche.benchmarks import nc_benchmark

    return nc_benchmark(
        Noise(n),
        Noise(10),
        n_experiences=1,
        task_labels=False,
        train_transform=transform,
        eval_transform=PLAIN,
    )


def small_cnn() -> nn.Module:
    """The package's small network with a plain classifier."""
    from avalanche_ext.models import SmallCNN

    return nn.Sequential(SmallCNN(in_channels=3, feature_size=64), nn.Linear(64, 10))


def loader(repeats: int) -> float:
    """Images a second, crop, flip and normalise, one process."""
    from avalanche.benchmarks.utils.data_loader import TaskBalancedDataLoader

    from avalanche_ext.loaders import make_loader

    data = benchmark(2560, AUGMENTED).train_stream[0].dataset.train()
    theirs = TaskBalancedDataLoader(
        data, batch_size=BATCH, shuffle=True, oversample_small_groups=True
    )
    ours = make_loader(
        data, batch_size=BATCH, shuffle=True, device="cpu", memory_resident=True
    )

    def epoch(batches: Any) -> None:
        for _ in batches:
            pass

    return median_ratio(lambda: epoch(theirs), lambda: epoch(ours), repeats)


def iteration(repeats: int) -> float:
    """Training of a small CNN with epoch metrics, over a loop without Avalanche."""
    from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin

    n, epochs = 2560, 3
    experience = benchmark(n, PLAIN).train_stream[0]
    model = small_cnn()
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        train_mb_size=BATCH,
        train_epochs=epochs,
        plugins=[MemoryResidentPlugin(memory_resident=True)],
        evaluator=EvaluationPlugin(
            accuracy_metrics(epoch=True), loss_metrics(epoch=True), loggers=[]
        ),
    )
    bare = bare_loop(Noise(n), epochs)
    return median_ratio(lambda: strategy.train(experience), bare, repeats)


def bare_loop(data: Noise, epochs: int) -> Callable[[], None]:
    """The same training over the same tensors, without Avalanche and metrics."""
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2)
    labels = torch.tensor(data.targets)
    mean, std = torch.tensor(MEAN).view(-1, 1, 1), torch.tensor(STD).view(-1, 1, 1)
    model, criterion = small_cnn(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def train() -> None:
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(BATCH):
                x = images.index_select(0, rows).float().div_(255).sub_(mean).div_(std)
                optimizer.zero_grad()
                criterion(model(x), labels[rows]).backward()
                optimizer.step()

    return train


def import_time(repeats: int) -> float:
    """Seconds that importing this package takes once Avalanche is there."""
    code = (
        "import avalanche, time; start = time.perf_counter(); import avalanche_ext; "
        "print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    return statistics.median(
        float(subprocess.run(command, capture_output=True, check=True).stdout)
        for _ in range(min(repeats, 3))
    )


ENTRIES = (
    Entry(
        "loader",
        "images a second with crop, flip, normalise at 32x32, over Avalanche's loader",
        3.5,
        True,
        loader,
    ),
    Entry(
        "iteration",
        "training a small CNN at batch 128 with epoch metrics, over a bare PyTorch loop",
        1.12,
        False,
        iteration,
    ),
    Entry(
        "import",
        "seconds that `import avalanche_ext` adds to `import avalanche`",
        0.3,
        False,
        import_time,
        " s",
    ),
)


def main() -> None:
    """Measure what was asked for and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [entry.name for entry in ENTRIES]
    parser.add_argument("--only", choices=names, help="one figure instead of all")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; more need idle cores"
    )
    options = parser.parse_args()
    for name in ("repeats", "threads"):
        if (value := getattr(options, name)) < 1:
            parser.error(f"--{name} is {value}, wanted at least 1")
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # a script may; the package does not
    print(
        f"torch {torch.__version__}, {processor()}, threads: {options.threads}, "
        f"median of {options.repeats} turns"
    )
    for entry in ENTRIES:
        if options.only in (None, entry.name):
            name, figure, target, verdict, what = entry.row(options.repeats)
            print(f"{name:12}{figure:>9}  {target:10}{verdict:9}{what}", flush=True)


def processor() -> str:
    """Name of the CPU."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
