"""CwD and BDR against their slow restatements, and within a training iteration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from timings.foundation import AUGMENTED, BATCH, benchmark
from timings.measure import Entry, iteration_ratio, median_ratio

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

    return iteration_ratio(BDR, LUCIR, second_experience, BATCH, repeats)


def second_experience(method: Any, watch: Any) -> Any:
    """A function that trains two whole batches of the second experience."""
    from avalanche_ext import CosineClassifier, FeatureClassifier, resnet32_cifar

    extractor = resnet32_cifar()
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
    return lambda: strategy.train(stream[1])


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
