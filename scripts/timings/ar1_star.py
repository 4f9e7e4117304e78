"""AR1*: a mixed mini-batch, and the host's part of a long stream."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from timings.foundation import PLAIN, Noise
from timings.measure import Entry, iteration_ratio, seconds
from timings.watch import Watch

BATCH, NEW, REPLAYED = 32, 5, 27
TURN = 4  # iterations
LATENT_LAYER = "feature_extractor.conv5_4.dw"  # 32 % of the work is above
EXPERIENCES = 12  # of the 391 of NICv2, which all cost the same


def stream(leaf: Any, rows: Sequence[Sequence[int]], n_test: int = 100) -> Any:
    """A stream whose experiences hold these rows of a dataset; the first are tested."""
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset

    data = as_classification_dataset(
        leaf, transform_groups={"train": (PLAIN, None), "eval": (PLAIN, None)}
    )
    train = [data.subset(list(mine)) for mine in rows]
    return benchmark_from_datasets(train=train, test=[data.subset(range(n_test))])


def training(extractor: nn.Module) -> dict[str, Any]:
    """Model and optimizer as arguments of a strategy."""
    from avalanche_ext import FeatureClassifier

    model = FeatureClassifier(extractor, nn.Linear(extractor.feature_size, 10))
    sgd = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    return {"model": model, "optimizer": sgd, "evaluator": None}


def mixed(repeats: int, *, cache_current: bool = False) -> float:
    """A training iteration with latents, over one with as many images."""
    from avalanche.training.supervised import Naive

    from avalanche_ext.models import MobileNetV1
    from avalanche_ext.models.batch_renorm_conversion import to_batch_renorm
    from avalanche_ext.plugins import CWRStarPlugin, MemoryResidentPlugin
    from avalanche_ext.strategies import AR1Star

    images = Noise(TURN * BATCH, size=128)
    n_old = TURN * REPLAYED

    def latent(watch: Any) -> Any:
        return AR1Star(
            **training(MobileNetV1()),
            input_shape=(3, 128, 128),
            latent_layer=LATENT_LAYER,
            memory_size=n_old,
            cache_current=cache_current,
            train_mb_size=BATCH,
            plugins=[watch],
        )

    def native(watch: Any) -> Any:
        options = training(to_batch_renorm(MobileNetV1()))
        own = [MemoryResidentPlugin(), CWRStarPlugin()]
        return Naive(**options, train_mb_size=BATCH, plugins=[*own, watch])

    def prepare(make: Any, watch: Any) -> Callable[[], None]:
        strategy, everything = make(watch), range(TURN * BATCH)
        first = everything[:n_old]
        second = everything if make is native else everything[n_old:]
        experiences = stream(images, [first, second]).train_stream
        strategy.train(experiences[0])

        def train() -> None:
            # each turn is again the second experience: the memory stays as it is
            strategy.clock.train_exp_counter = 1
            strategy.train(experiences[1])

        return train

    return iteration_ratio(latent, native, prepare, BATCH, repeats)


def cached(repeats: int) -> float:
    """The same where the new images' latents were computed beforehand."""
    return mixed(repeats, cache_current=True)


def overhead(repeats: int) -> float:
    """Percentage of a stream outside of forward, backward and optimizer."""
    from avalanche_ext.models import mobilenet_v1_cifar
    from avalanche_ext.strategies import AR1Star

    n, size = 3000, 16
    rows = [range(c, n, 10) for c in range(10)]  # 300 images of one class
    later = [rows[i % 10] for i in range(EXPERIENCES)]
    benchmark = stream(Noise(n, size=size), [range(n), *later])
    options = training(mobilenet_v1_cifar(width=0.5))
    strategy = AR1Star(
        **options,
        input_shape=(3, size, size),
        train_mb_size=128,
        train_epochs=4,
        eval_mb_size=128,
    )
    watch = Watch()
    watch.follow(options["model"], "forward")
    watch.follow(strategy, "backward")
    watch.follow(options["optimizer"], "step")
    first, *others = benchmark.train_stream
    strategy.train(first)

    def turn() -> float:
        watch.seconds = 0.0

        def run() -> None:
            for experience in others:
                strategy.train(experience)
                strategy.eval(benchmark.test_stream)

        total = seconds(run)
        return 100 * (1 - watch.seconds / total)

    return statistics.median(turn() for _ in range(min(repeats, 3)))


ENTRIES = (
    Entry(
        "latent",
        "training iteration of AR1* (MobileNetV1 at conv5_4/dw, 5 images and 27 "
        "latents), over native replay (32 images)",
        0.25,
        False,
        mixed,
    ),
    Entry(
        "latent-cache",
        "the same, with the latents of the 5 images computed beforehand",
        0.25,
        False,
        cached,
    ),
    Entry(
        "latent-host",
        f"time of AR1* outside of forward, backward and optimizer: {EXPERIENCES} "
        "experiences like those of NICv2-391, images of 16x16",
        15,
        False,
        overhead,
        " %",
    ),
)
