"""Evaluating many small test experiences, and one of them many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from timings.foundation import PLAIN, Noise
from timings.measure import Entry, median_ratio
from timings.methods.inference import classifier
from timings.methods.lucir_family import METHODS
from timings.methods.method import Frame, Run

N_EXPERIENCES, N_IMAGES = 100, 32
TIMES = 10


def stream() -> Any:
    """Test experiences of `N_IMAGES` of one class each."""
    from avalanche.benchmarks import nc_benchmark

    data = Noise(N_EXPERIENCES * N_IMAGES)
    data.targets = [i % N_EXPERIENCES for i in range(len(data.targets))]
    return nc_benchmark(
        data,
        data,
        n_experiences=N_EXPERIENCES,
        task_labels=False,
        shuffle=False,
        train_transform=PLAIN,
        eval_transform=PLAIN,
    )


def run() -> Run:
    """LUCIR's ResNet-32, untrained but for one step."""
    (lucir,) = (m for m in METHODS if m.name == "lucir")
    strategy = lucir.ours(Frame(torch.device("cpu"), 1), ()).strategy
    benchmark = stream()
    strategy.train(benchmark.train_stream[0])
    return Run(strategy, benchmark.train_stream, benchmark.test_stream)


def many(repeats: int) -> float:
    """All experiences in one evaluation."""
    return _over_inference(run(), 1, min(repeats, 3))


def again(repeats: int) -> float:
    """The first four experiences as one, once more after each of many experiences."""
    from avalanche.benchmarks import benchmark_from_datasets

    whole = run()
    data = whole.test_stream[0].dataset
    for experience in whole.test_stream[1:4]:
        data = data.concat(experience.dataset)
    one = benchmark_from_datasets(test=[data]).test_stream
    return _over_inference(whole._replace(test_stream=one), TIMES, min(repeats, 3))


def _over_inference(run: Run, times: int, repeats: int) -> float:
    def often(call: Callable[[], Any]) -> Callable[[], None]:
        def repeated() -> None:
            for _ in range(times):
                call()

        return repeated

    def evaluate() -> None:
        run.strategy.eval(run.test_stream)

    evaluate()  # lets the head grow for all classes, which the bare loop then has too
    return median_ratio(often(evaluate), often(classifier(run)), repeats)


ENTRIES = (
    Entry(
        "eval-many",
        f"evaluation of {N_EXPERIENCES} test experiences of {N_IMAGES} images by "
        "ResNet-32, over bare inference in the same batches",
        1.2,
        False,
        many,
    ),
    Entry(
        "eval-again",
        f"{TIMES} evaluations of the same {4 * N_IMAGES} images, over bare inference",
        1.2,
        False,
        again,
    ),
)
