"""EWC+FR+Replay: the Fisher information, and a mixed mini-batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from timings.foundation import AUGMENTED, benchmark
from timings.measure import Entry, iteration_ratio, median_ratio

N_IMAGES = 2000
BATCH = 256


def cifarnet() -> nn.Module:
    """The network of the paper with 10 classes, in evaluation mode."""
    from avalanche_ext.models import CifarNet

    return nn.Sequential(CifarNet(), nn.Linear(512, 10)).eval()


def fisher(repeats: int) -> float:
    """Diagonal Fisher of 2,000 images, over one backward pass an image."""
    from avalanche_ext.functional.fisher import diagonal_fisher

    model = cifarnet()
    x, y = torch.randn(N_IMAGES, 3, 32, 32), torch.arange(N_IMAGES) % 10

    def slow() -> None:
        parameters = list(model.parameters())
        sums = [torch.zeros_like(p) for p in parameters]
        for one, label in zip(x.split(1), y.split(1), strict=True):
            loss = cross_entropy(model(one), label)
            for total, g in zip(
                sums, torch.autograd.grad(loss, parameters), strict=True
            ):
                total.addcmul_(g, g)

    return 1 / median_ratio(lambda: diagonal_fisher(model, x, y), slow, repeats)


def mixed(repeats: int) -> float:
    """A training iteration with all three priors, over plain cross-entropy."""
    from avalanche.training.supervised import Naive

    from avalanche_ext import EWCFRReplay, MemoryResidentPlugin
    from avalanche_ext.models import CifarNet, TaskClassifier, TaskIncrementalClassifier

    def ours(**options: Any) -> Any:
        return EWCFRReplay(memory_size=BATCH, temperature=2.0, **options)

    def plain(**options: Any) -> Any:
        plugins = [MemoryResidentPlugin(), *options.pop("plugins")]
        return Naive(plugins=plugins, **options)

    def second_experience(make: Any, watch: Any) -> Any:
        model = TaskIncrementalClassifier(CifarNet(), TaskClassifier(512))
        strategy = make(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
            train_mb_size=BATCH,
            plugins=[watch],
            evaluator=None,
        )
        stream = benchmark(6 * BATCH, AUGMENTED, 2, task_labels=True).train_stream
        strategy.train(stream[0])
        return lambda: strategy.train(stream[1])

    return iteration_ratio(ours, plain, second_experience, BATCH, repeats)


ENTRIES = (
    Entry(
        "fisher",
        "diagonal Fisher of CifarNet over 2,000 images, against one image by one",
        2,
        True,
        fisher,
    ),
    Entry(
        "mixed",
        "training iteration of EWC+FR+Replay (CifarNet, batch 256), over plain "
        "cross-entropy",
        1.15,
        False,
        mixed,
    ),
)
