"""The toy stream, its models, and strategies on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from avalanche.benchmarks import (
    class_incremental_benchmark,
    nc_benchmark,
    task_incremental_benchmark,
)
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn
from torch.optim import SGD
from torch.utils.data import Dataset

from avalanche_ext.models import (
    CosineClassifier,
    FeatureClassifier,
    TaskClassifier,
    TaskIncrementalClassifier,
)

N_CLASSES, N_EXPERIENCES, SIDE = 6, 3, 6

#: The forms in which Avalanche gives the same stream.
APIS = ("old", "old_task_labels", "new", "new_task_labels")


class Images(Dataset):
    """Noisy copies of one pattern a class, as float tensors."""

    def __init__(self, per_class: int, seed: int) -> None:
        patterns = torch.Generator().manual_seed(7)
        rng = torch.Generator().manual_seed(seed)
        means = torch.randn(N_CLASSES, 1, SIDE, SIDE, generator=patterns)
        y = torch.arange(N_CLASSES).repeat(per_class)
        noise = torch.randn(len(y), 1, SIDE, SIDE, generator=rng)
        self.tensors = (means[y] + 0.8 * noise, y)
        self.targets = y.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.tensors[0][i], self.targets[i]


def toy_benchmark(api: str = "old") -> Any:
    """Three experiences of two classes, 24 training images each."""
    train, test = Images(24, seed=1), Images(10, seed=2)
    if api.startswith("old"):
        return nc_benchmark(
            train,
            test,
            n_experiences=N_EXPERIENCES,
            task_labels=api.endswith("task_labels"),
            fixed_class_order=list(range(N_CLASSES)),
        )
    benchmark = class_incremental_benchmark(
        {
            "train": as_classification_dataset(train),
            "test": as_classification_dataset(test),
        },
        class_order=list(range(N_CLASSES)),
        num_experiences=N_EXPERIENCES,
    )
    if api.endswith("task_labels"):
        return task_incremental_benchmark(benchmark)
    return benchmark


def toy_extractor() -> nn.Module:
    """A multilayer perceptron with batch normalisation and eight features."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 8),
    )


def toy_model(cosine: bool = True) -> FeatureClassifier:
    """The extractor with one classifier for all classes."""
    head = CosineClassifier(8) if cosine else nn.Linear(8, N_CLASSES)
    return FeatureClassifier(toy_extractor(), head)


def warm_model() -> FeatureClassifier:
    """With a linear classifier, and statistics of noise in place of a pretraining."""
    model = toy_model(cosine=False)
    model(torch.randn(32, 1, SIDE, SIDE))
    return model


def task_model(n_outputs: int | None = None) -> TaskIncrementalClassifier:
    """The extractor with a head a task."""
    return TaskIncrementalClassifier(toy_extractor(), TaskClassifier(8, n_outputs))


def build(strategy: Callable[..., Any], **options: Any) -> Any:
    """A strategy on the toy model, with everything a user would leave at a default."""
    model = options.pop("model", None) or toy_model()
    evaluator = EvaluationPlugin(
        accuracy_metrics(epoch=True, stream=True, experience=True),
        forgetting_metrics(stream=True),
        loggers=[],
    )
    return strategy(
        model=model,
        **{
            "optimizer": SGD(
                model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
            ),
            "train_mb_size": 16,
            "train_epochs": 2,
            "eval_mb_size": 64,
            "evaluator": evaluator,
            **options,
        },
    )


def naive_with(*plugins: Any, **options: Any) -> Any:
    """Avalanche's Naive with the plugins."""
    return build(Naive, plugins=[*plugins, *options.pop("plugins", [])], **options)
