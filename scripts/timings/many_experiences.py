"""Every method on a long stream of small experiences: next to no arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from timings.foundation import PLAIN, Noise

BATCH, EPOCHS = 128, 1
N_FEATURES = 16


@dataclass(frozen=True)
class Long:
    """A stream of many experiences.

    Attributes:
        n: Experiences.
        n_images: In each.
        side: Of an image, in pixels.
        memory: Images, or latents, that a method may keep.
        device: Where methods train.
    """

    n: int = 100
    n_images: int = 300
    side: int = 8
    memory: int = 200
    device: torch.device | str = "cpu"

    def classes(self, per_experience: int = 2, *, task_labels: bool = False) -> Any:
        """New classes in each experience."""
        from avalanche.benchmarks import nc_benchmark

        n_classes = self.n * per_experience
        data = Noise(self.n * self.n_images, size=self.side)
        test = Noise(self.n * (self.n_images // 3), size=self.side)
        for some in (data, test):
            some.targets = [i % n_classes for i in range(len(some.targets))]
        return nc_benchmark(
            data,
            test,
            n_experiences=self.n,
            task_labels=task_labels,
            shuffle=False,
            train_transform=PLAIN,
            eval_transform=PLAIN,
        )

    def returning(self) -> Any:
        """All classes in the first experience, then one of them in each."""
        from avalanche.benchmarks import benchmark_from_datasets
        from avalanche.benchmarks.utils import as_classification_dataset

        groups: dict[str, Any] = {"train": (PLAIN, None), "eval": (PLAIN, None)}
        train, test = (
            as_classification_dataset(Noise(n, size=self.side), transform_groups=groups)
            for n in (10 * self.n_images, self.n_images // 3)
        )
        rows = [range(self.n_images)]
        rows += [range(i % 10, 10 * self.n_images, 10) for i in range(self.n - 1)]
        return benchmark_from_datasets(
            train=[train.subset(list(mine)) for mine in rows],
            test=[test.subset(range(len(test))) for _ in rows],
        )


def extractor(stream: Long) -> nn.Module:
    """Four small kernels, normalisation, and a kernel of the whole image."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, N_FEATURES, stream.side),
        nn.Flatten(),
    )


def options(stream: Long, model: nn.Module) -> dict[str, Any]:
    """Arguments that all strategies share; metrics of epochs and experiences."""
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training.plugins import EvaluationPlugin

    metrics = accuracy_metrics(epoch=True, experience=True)
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        "train_mb_size": BATCH,
        "train_epochs": EPOCHS,
        "eval_mb_size": BATCH,
        "evaluator": EvaluationPlugin(metrics, loggers=[]),
        "device": torch.device(stream.device),
    }


def _cosine(stream: Long) -> dict[str, Any]:
    from avalanche_ext import CosineClassifier, FeatureClassifier

    return options(
        stream, FeatureClassifier(extractor(stream), CosineClassifier(N_FEATURES))
    )


def _linear(stream: Long, n_classes: int) -> nn.Module:
    from avalanche_ext import FeatureClassifier

    return FeatureClassifier(extractor(stream), nn.Linear(N_FEATURES, n_classes))


Made = tuple[Any, Any]  #: a strategy and its benchmark


def lucir(stream: Long) -> Made:
    """LUCIR with a memory of 200 images."""
    from avalanche_ext import LUCIR

    return LUCIR(**_cosine(stream), memory_size=stream.memory), stream.classes()


def cwd(stream: Long) -> Made:
    """LUCIR with CwD in all experiences."""
    from avalanche_ext import BDR

    own = {"bdr": False, "cwd_experiences": "all", "memory_size": stream.memory}
    return BDR(**_cosine(stream), **own), stream.classes()


def bdr(stream: Long) -> Made:
    """BDR with a memory of 200 images."""
    from avalanche_ext import BDR

    return BDR(**_cosine(stream), memory_size=stream.memory), stream.classes()


def mnemonics(stream: Long) -> Made:
    """Mnemonics whose exemplars make one step, and are tuned on once."""
    from avalanche_ext import Mnemonics
    from avalanche_ext.buffers import MnemonicsOptimizer

    strategy = Mnemonics(
        **_cosine(stream),
        memory_size=stream.memory,
        optimization=MnemonicsOptimizer.fast(steps=1, inner_steps=1),
        finetuning_epochs=1,
        progress=False,
    )
    return strategy, stream.classes()


def ewc_fr_replay(stream: Long) -> Made:
    """EWC+FR+Replay with ten points a past experience, a head each."""
    from avalanche_ext import EWCFRReplay
    from avalanche_ext.models import TaskClassifier, TaskIncrementalClassifier

    model = TaskIncrementalClassifier(extractor(stream), TaskClassifier(N_FEATURES))
    strategy = EWCFRReplay(**options(stream, model), memory_size=10)
    return strategy, stream.classes(task_labels=True)


def ar1_star(stream: Long) -> Made:
    """AR1* with 200 latents."""
    from avalanche_ext import AR1Star

    model = _linear(stream, 10)
    strategy = AR1Star(
        **options(stream, model),
        input_shape=(3, stream.side, stream.side),
        latent_layer="feature_extractor.2",
        memory_size=stream.memory,
    )
    return strategy, stream.returning()


def rerelrp(stream: Long) -> Made:
    """ReReLRP that prunes all it may; forests of five trees."""
    from avalanche_ext import ReReLRP

    n_classes = 2 * stream.n
    strategy = ReReLRP(
        **options(stream, _linear(stream, n_classes)),
        input_shape=(3, stream.side, stream.side),
        acc_drop=100,
        reference_per_class=10,
        features=8,
        num_trees=5,
    )
    return strategy, stream.classes()


def naive(stream: Long) -> Made:
    """Avalanche's Naive."""
    from avalanche.training.supervised import Naive

    model = _linear(stream, 2 * stream.n)
    return Naive(**options(stream, model)), stream.classes()


def replay(stream: Long) -> Made:
    """Avalanche's Replay with 200 images."""
    from avalanche.training.supervised import Replay

    model = _linear(stream, 2 * stream.n)
    loss = nn.CrossEntropyLoss()
    return Replay(
        **options(stream, model), criterion=loss, mem_size=stream.memory
    ), stream.classes()


METHODS: dict[str, Callable[[Long], Made]] = {
    "lucir": lucir,
    "cwd": cwd,
    "bdr": bdr,
    "mnemonics": mnemonics,
    "ewc_fr_replay": ewc_fr_replay,
    "ar1_star": ar1_star,
    "rerelrp": rerelrp,
    "naive": naive,
    "replay": replay,
}
