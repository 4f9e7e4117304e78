"""Batches, the host's loop, and importing."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import transforms as T
from torchvision.datasets import CIFAR10

from timings.measure import Entry, median_ratio

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PLAIN = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])
AUGMENTED = T.Compose([T.RandomCrop(32, 4), T.RandomHorizontalFlip(), PLAIN])
BATCH = 128


class Noise(CIFAR10):
    """Random images in the class of CIFAR-10, so that the host treats them alike."""

    def __init__(self, n: int, size: int = 32) -> None:
        """Draw n square images."""
        shape = (n, 3, size, size)
        pixels = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
        self.data = pixels.transpose(0, 2, 3, 1)
        self.targets = [i % 10 for i in range(n)]
        self.transform = self.target_transform = None


def benchmark(
    n: int, transform: Any, n_experiences: int = 1, *, task_labels: bool = False
) -> Any:
    """n images, as the classic benchmarks make theirs."""
    from avalanche.benchmarks import nc_benchmark

    return nc_benchmark(
        Noise(n),
        Noise(10),
        n_experiences=n_experiences,
        task_labels=task_labels,
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
