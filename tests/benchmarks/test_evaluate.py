"""One row of the accuracy matrix."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    class_incremental_benchmark,
    nc_benchmark,
)
from avalanche.benchmarks.utils import as_classification_dataset
from torch.utils.data import TensorDataset

from benchmarks.runs.evaluate import accuracy_row, classes_of


class Recorder:
    """Stands for a strategy: its accuracy on experience j is j / 10."""

    def eval(self, experiences):
        numbers = [e.current_experience for e in experiences]
        name = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{:03d}"
        stale = {"Loss_Exp/eval_phase/test_stream/Task000/Exp000": 7.0}
        return {**{name.format(j): j / 10 for j in numbers}, **stale}


def images(*classes):
    """Two images of each class."""
    y = torch.tensor(classes).repeat(2)
    data = TensorDataset(torch.zeros(len(y), 1, 2, 2), y)
    data.targets = y.tolist()
    return data


def same_classes():
    """Each experience brings new images of the same classes."""
    parts = [as_classification_dataset(images(0, 1)) for _ in range(3)]
    return benchmark_from_datasets(train=parts, test=parts)


def complete_test_set():
    """Experiences bring new classes; all of them are tested at once."""
    parts = [as_classification_dataset(images(k)) for k in range(3)]
    whole = [as_classification_dataset(images(0, 1, 2))]
    return benchmark_from_datasets(train=parts, test=whole)


def old_benchmark(**options):
    """New classes in each experience, in Avalanche's old form."""
    return nc_benchmark(images(*range(6)), images(*range(6)), 3, seed=0, **options)


def new_benchmark():
    """New classes in each experience, in Avalanche's new form."""
    data = as_classification_dataset(images(*range(6)))
    return class_incremental_benchmark(
        {"train": data, "test": data}, num_experiences=3, seed=0
    )


def row(benchmark, n_trained):
    """The row after so many experiences."""
    trained = islice(benchmark.train_stream, n_trained)
    seen = set().union(*(classes_of(experience) for experience in trained))
    return accuracy_row(Recorder(), list(benchmark.test_stream), seen)


@pytest.mark.parametrize(
    ("benchmark", "after_second", "after_third"),
    [
        (lambda: old_benchmark(task_labels=False), [0, 0.1, None], [0, 0.1, 0.2]),
        (lambda: old_benchmark(task_labels=True), [0, 0.1, None], [0, 0.1, 0.2]),
        (new_benchmark, [0, 0.1, None], [0, 0.1, 0.2]),
        (same_classes, [0, 0.1, 0.2], [0, 0.1, 0.2]),
        (complete_test_set, [0], [0]),
    ],
)
def test_row_holds_what_the_strategy_can_know(benchmark, after_second, after_third):
    made = benchmark()
    assert row(made, 2) == after_second
    assert row(made, 3) == after_third


def test_same_class_of_another_task_is_not_known():
    made = old_benchmark(task_labels=True, class_ids_from_zero_in_each_exp=True)
    assert classes_of(made.test_stream[1]) == {(1, 0), (1, 1)}
    assert row(made, 1) == [0, None, None]
