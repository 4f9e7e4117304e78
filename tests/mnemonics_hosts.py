"""Mnemonics on toy streams: small in everything, with convolutions that can transfer."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import nc_benchmark
from cases import N_CLASSES, N_EXPERIENCES, SIDE, Images, build, toy_benchmark
from pytest import MonkeyPatch
from torch import nn
from torch.optim import SGD

from avalanche_ext.buffers import MnemonicsOptimizer
from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.models import CosineClassifier, FeatureClassifier
from avalanche_ext.strategies import Mnemonics

#: Such that the toy stream's inputs are pixels: it has no normalisation to be read.
PIXELS: dict[str, Any] = {"mean": (0.5,), "std": (1 / 16,)}


def conv_model() -> FeatureClassifier:
    """Two convolutions, one of them with a bias, and a cosine classifier."""
    extractor = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, SIDE - 2),
        nn.Flatten(),
    )
    return FeatureClassifier(extractor, CosineClassifier(8))


def quick(**changes: Any) -> MnemonicsOptimizer:
    """Two outer steps of two inner ones each."""
    return MnemonicsOptimizer.fast(**{"steps": 2, "inner_steps": 2, **changes})


def mnemonics(**options: Any) -> Any:
    """The strategy; exemplars few, tuning short."""
    model = options.pop("model", None) or conv_model()
    sizes = {} if "memory_size" in options else {"exemplars_per_class": 4}
    fixed = {
        "optimizer": SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4),
        "optimization": quick(),
        "finetuning_epochs": 2,
        **sizes,
        **PIXELS,
    }
    return build(Mnemonics, model=model, **{**fixed, **options})


def trained(strategy: Any, n: int | None = None, api: str = "old") -> Any:
    """The strategy after the first n experiences."""
    strategy.train(toy_benchmark(api).train_stream[:n])
    return strategy


def pixel_stream() -> Any:
    """The toy stream with inputs in 0 to 1, which need no mean and std."""
    train, test = Images(24, seed=1), Images(10, seed=2)
    for data in (train, test):
        data.tensors = ((data.tensors[0] / 16 + 0.5).clamp(0, 1), data.tensors[1])
    return nc_benchmark(
        train,
        test,
        n_experiences=N_EXPERIENCES,
        task_labels=False,
        fixed_class_order=list(range(N_CLASSES)),
    )


def train_on(
    path: Path, start: int, *, seed: int = 3, kill_at: int | None = None, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """Train the rest of the stream, saving as it goes; killed in some outer step."""
    torch.manual_seed(seed)
    benchmark, generator = toy_benchmark(), torch.Generator().manual_seed(seed)
    strategy, count = mnemonics(generator=generator, **options), [0]
    if start:
        load_checkpoint(path, strategy, benchmark.train_stream)
    with MonkeyPatch.context() as patch:
        original = MnemonicsOptimizer.gradient

        def fatal(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        patch.setattr(MnemonicsOptimizer, "gradient", fatal)
        for experience in benchmark.train_stream[start:]:
            strategy.train(experience)
            metrics = strategy.eval(benchmark.test_stream)
            save_checkpoint(path, strategy, benchmark.train_stream)
    return strategy, dict(metrics)
