"""Accuracy over the classes seen so far, and its average."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from cases import APIS, Images, toy_benchmark
from torch import nn

from avalanche_ext.metrics.accuracy import (
    AverageIncrementalAccuracy,
    SeenClassesAccuracy,
)

SEEN = "Top1_Acc_Seen/eval_phase/test_stream"
AVERAGE = "Avg_Incremental_Acc/eval_phase/test_stream"


class Oracle(nn.Module):
    """Knows classes below `right`; takes the others, and unknown images, for 5."""

    def __init__(self, right):
        super().__init__()
        self.right = right
        self.shift = nn.Parameter(torch.zeros(6))
        data = Images(10, seed=2)  # the test images of `toy_benchmark`
        self.register_buffer("images", data.tensors[0].flatten(1))
        self.register_buffer("labels", data.tensors[1])

    def forward(self, x):
        nearest = torch.cdist(x.flatten(1), self.images).argmin(1)
        labels = self.labels[nearest]
        labels = torch.where(labels < self.right, labels, 5)
        return nn.functional.one_hot(labels, 6).float() + self.shift


def naive(model, **options):
    evaluator = EvaluationPlugin(
        SeenClassesAccuracy(), AverageIncrementalAccuracy(), loggers=[BaseLogger()]
    )
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        train_mb_size=100,
        eval_mb_size=13,
        evaluator=evaluator,
        **options,
    )


@pytest.mark.parametrize("api", APIS)
def test_seen_accuracy_counts_the_classes_trained_so_far_and_no_others(api):
    benchmark = toy_benchmark(api)
    strategy = naive(Oracle(right=3))
    seen, average = [], []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        results = strategy.eval(benchmark.test_stream)
        seen.append(results[SEEN])
        average.append(results[AVERAGE])
    # right: classes 0-2, and 5 by chance; seen: classes 0-1, 0-3, 0-5
    assert seen == [1.0, 3 / 4, 4 / 6]
    assert average == pytest.approx([1.0, (1 + 3 / 4) / 2, (1 + 3 / 4 + 4 / 6) / 3])


@pytest.mark.parametrize("api", APIS)
def test_seen_accuracy_of_the_part_of_the_stream_seen_is_the_same(api):
    benchmark = toy_benchmark(api)
    strategy = naive(Oracle(right=3))
    strategy.train(list(benchmark.train_stream)[:2])
    whole = strategy.eval(benchmark.test_stream)[SEEN]
    assert strategy.eval(list(benchmark.test_stream)[:2])[SEEN] == whole == 3 / 4


def test_seen_classes_are_read_from_the_labels_where_the_experience_names_none():
    data = as_classification_dataset(Images(10, seed=2))
    parts = [data.subset([i for i in range(60) if i % 6 in c]) for c in ((0, 3), (4,))]
    benchmark = benchmark_from_datasets(train=parts, test=[data])
    strategy = naive(Oracle(right=4))
    assert not hasattr(benchmark.train_stream[0], "classes_in_this_experience")
    strategy.train(benchmark.train_stream[0])
    assert strategy.eval(benchmark.test_stream)[SEEN] == 1.0
    strategy.train(benchmark.train_stream[1])
    assert strategy.eval(benchmark.test_stream)[SEEN] == pytest.approx(2 / 3)


def test_nothing_is_published_before_any_training():
    results = naive(Oracle(right=6)).eval(toy_benchmark().test_stream)
    assert SEEN not in results and AVERAGE not in results


@pytest.mark.parametrize("eval_every", [0, 1])
def test_average_counts_each_experience_once_under_periodic_evaluation(eval_every):
    benchmark = toy_benchmark()
    model = Oracle(right=6)

    class Unlearn(SupervisedPlugin):
        """What is measured while training does not count in the end."""

        def before_training_exp(self, strategy, **kwargs):
            model.right = 0

    options = {"plugins": [Unlearn()], "train_epochs": 2, "eval_every": eval_every}
    strategy = naive(model, **options)
    for n, experience in enumerate(benchmark.train_stream):
        strategy.train(experience, eval_streams=[benchmark.test_stream])
        assert strategy.evaluator.metrics[1].accuracies["test"][n + 1] < 1
        model.right = (6, 3, 0)[n]
        strategy.eval(benchmark.test_stream)
        results = strategy.eval(benchmark.test_stream)
    # in the last experience: class 5 of six
    assert results[AVERAGE] == pytest.approx((1 + 3 / 4 + 1 / 6) / 3)


def test_average_of_each_stream_is_its_own():
    benchmark = toy_benchmark()
    strategy = naive(Oracle(right=3))
    for experience in benchmark.train_stream:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
        results = strategy.eval(benchmark.train_stream)  # unknown images, all "5"...
    metric = strategy.evaluator.metrics[1]
    assert set(metric.accuracies) == {"test", "train"}
    assert metric.accuracies["test"] == {1: 1.0, 2: 3 / 4, 3: 4 / 6}
    assert results["Avg_Incremental_Acc/eval_phase/train_stream"] == pytest.approx(
        sum(metric.accuracies["train"].values()) / 3
    )


def test_evaluating_an_untrained_experience_alone_changes_no_average():
    benchmark = toy_benchmark()
    strategy = naive(Oracle(right=6))
    strategy.train(benchmark.train_stream[0])
    before = strategy.eval(benchmark.test_stream)[AVERAGE]
    metric = strategy.evaluator.metrics[1]
    kept = {k: dict(v) for k, v in metric.accuracies.items()}
    strategy.eval([benchmark.test_stream[2]])
    assert metric.accuracies == kept and metric.result() == before == 1.0
