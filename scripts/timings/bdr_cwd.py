"""CwD and BDR against their slow restatements, and within a training iteration."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from timings.foundation import AUGMENTED, BATCH, benchmark
from timings.measure import Entry, median_ratio

N_FEATURES = 512
CALLS = 10  # a turn: one alone is too short for a clock
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # the restatements


def update(repeats: int) -> float:
    """One update of 60 classes, over the same example by example."""
    from slow_bdr_cwd import updated_slowly

    from avalanche_ext.functional.class_statistics import class_statistics
    from avalanche_ext.functional.logit_adjustment import (
        start_adjustment,
        update_adjustment,
    )

    k = 60
    data, batch = torch.randn(40 * k, N_FEATURES), torch.randn(BATCH, N_FEATURES)
    targets = torch.randint(k, (BATCH,))
    state = start_adjustment(class_statistics(data, torch.arange(len(data)) % k, k))

    def ours() -> None:
        for _ in range(CALLS):
            update_adjustment(state, class_statistics(batch, targets, k))

    def slow() -> None:
        for _ in range(CALLS):
            updated_slowly(state, batch, targets, m=0.8, momentum=0.99)

    return 1 / median_ratio(ours, slow, repeats)


def decorrelation(repeats: int) -> float:
    """Value and gradient for 50 classes, over the same with a D x D matrix each."""
    from slow_bdr_cwd import decorrelated_slowly

    from avalanche_ext.functional.decorrelation import decorrelation_loss

    features = normalize(torch.randn(BATCH, N_FEATURES), dim=1).requires_grad_()
    targets = torch.randint(50, (BATCH,))

    def value_and_gradient(loss: Any) -> Any:
        def turn() -> None:
            for _ in range(CALLS):
                torch.autograd.grad(loss(features, targets), features)

        return turn

    return 1 / median_ratio(
        value_and_gradient(decorrelation_loss),
        value_and_gradient(decorrelated_slowly),
        repeats,
    )


def iteration(repeats: int) -> float:
    """A training iteration of BDR after the first experience, over LUCIR's."""
    from avalanche_ext import BDR, LUCIR

    times: tuple[list[float], list[float]] = ([], [])
    trained = [second_experience(method) for method in (BDR, LUCIR)]
    for repeat in range(repeats + 1):
        for which, train in zip(times, trained, strict=True):
            found = train()
            which += found if repeat else []
    return statistics.median(times[0]) / statistics.median(times[1])


def second_experience(method: Any) -> Any:
    """A function that trains two whole batches, and gives the seconds of each."""
    from avalanche.core import SupervisedPlugin

    from avalanche_ext import CosineClassifier, FeatureClassifier, resnet32_cifar

    class Stopwatch(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            if len(strategy.mb_y) == BATCH:  # not the last, smaller one
                self.seconds.append(time.perf_counter() - self.start)

    extractor, watch = resnet32_cifar(), Stopwatch()
    model = FeatureClassifier(extractor, CosineClassifier(extractor.feature_size))
    strategy = method(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        train_mb_size=BATCH,
        exemplars_per_class=5,
        without_new_classes="keep",
        plugins=[watch],
        evaluator=None,
    )
    stream = benchmark(4 * BATCH, AUGMENTED, n_experiences=2).train_stream
    strategy.train(stream[0])

    def train() -> list[float]:
        watch.seconds.clear()
        strategy.train(stream[1])
        return list(watch.seconds)

    return train


ENTRIES = (
    Entry(
        "bdr-update",
        "one update of BDR (batch 128, 512 features, 60 classes), against one example "
        "by example",
        8,
        True,
        update,
    ),
    Entry(
        "cwd",
        "CwD and its gradient (batch 128, 512 features, 50 classes), against D x D "
        "matrices",
        3,
        True,
        decorrelation,
    ),
    Entry(
        "bdr",
        "training iteration of BDR (ResNet-32, batch 128), over LUCIR's",
        1.05,
        False,
        iteration,
    ),
)
