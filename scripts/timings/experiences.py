"""Seconds of each experience outside its training iterations, and their growth."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from timings.many_experiences import METHODS, Long
from timings.watch import Watch

#: Milliseconds that an experience may take beside its arithmetic.
TARGET = 50.0
#: The first experience has no past, and the second one warms up what needs one.
SKIPPED = 2
WINDOW = 10
FEWEST = SKIPPED + 2  #: experiences with a growth

#: What a method does once an experience, beside forward passes: its own arithmetic.
ARITHMETIC = (
    ("avalanche_ext.buffers.herding", "herding_indices"),
    ("avalanche_ext.buffers.exemplar_level.ExemplarLevel", "fit"),
    ("avalanche_ext.buffers.exemplar_level.ExemplarLevel", "adjust"),
    ("avalanche_ext.plugins.balanced_finetuning.BalancedFinetuningPlugin", "_step"),
    ("avalanche_ext.models.past_data", "diagonal_fisher"),
    ("avalanche_ext.attribution.lrp.LRP", "__call__"),
    ("avalanche_ext.attribution.pruning", "prune"),
    ("avalanche_ext.models.experience_detectors.ExperienceDetectors", "_fit"),
    ("avalanche_ext.buffers.reference_samples", "herding_indices"),
)


@dataclass(frozen=True)
class Experience:
    """Milliseconds of one experience.

    Attributes:
        iterations: Training, from before each forward pass until after its update.
        arithmetic: Forward passes and what `ARITHMETIC` names, outside of iterations.
        rest: All else of ``train()``: loaders, adaptation, buffers, callbacks.
        evaluation: ``eval()`` of one test experience.
        inference: The forward passes of it.
    """

    iterations: float
    arithmetic: float
    rest: float
    evaluation: float
    inference: float


@contextmanager
def followed(watch: Watch) -> Iterator[None]:
    """Let a watch count all forward passes and what `ARITHMETIC` names.

    Args:
        watch: Which.
    """
    with ExitStack() as stack:
        for path, name in ((f"{nn.__name__}.Module", "__call__"), *ARITHMETIC):
            owner = _found(path)
            function = _but_transforms(watch, getattr(owner, name))
            stack.enter_context(patch.object(owner, name, function))
        yield


def _but_transforms(watch: Watch, function: Callable[..., Any]) -> Any:
    """Counted, unless a module transforms one image: that is a part of loading."""
    counted = watch.watched(function)

    def chosen(*args: Any, **kwargs: Any) -> Any:
        of_one = args and type(args[0]).__module__.startswith("torchvision.transforms")
        return (function if of_one else counted)(*args, **kwargs)

    return chosen


def _found(path: str) -> Any:
    """A module, or a class in one."""
    module, _, last = path.rpartition(".")
    if last[:1].isupper():
        return getattr(importlib.import_module(module), last)
    return importlib.import_module(path)


def iterations(watch: Watch) -> Any:
    """A plugin that adds up the seconds of training iterations.

    Args:
        watch: What it counts within them is not kept.
    """
    from avalanche.core import SupervisedPlugin

    class Iterations(SupervisedPlugin):
        seconds = 0.0

        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            self.before, self.start = watch.seconds, watch.now()

        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            self.seconds += watch.now() - self.start
            watch.seconds = self.before

    return Iterations()


def measured(name: str, stream: Long) -> list[Experience]:
    """Train and evaluate a method on every experience of a stream.

    Args:
        name: Of `METHODS`.
        stream: What experiences.

    Returns:
        The time of each.
    """
    torch.manual_seed(0)
    strategy, benchmark = METHODS[name](stream)
    watch = Watch(strategy.device)
    own = iterations(watch)
    strategy.plugins.append(own)
    found = []
    with followed(watch):
        for experience, test in zip(
            benchmark.train_stream, benchmark.test_stream, strict=True
        ):
            own.seconds = watch.seconds = 0.0
            start = watch.now()
            strategy.train(experience, eval_streams=[])
            total, arithmetic = watch.now() - start, watch.seconds
            watch.seconds, start = 0.0, watch.now()
            strategy.eval([test])
            evaluation = watch.now() - start
            rest = total - own.seconds - arithmetic
            parts = own.seconds, arithmetic, rest, evaluation, watch.seconds
            found.append(Experience(*(1e3 * part for part in parts)))
    return found


def growth(values: Sequence[float]) -> float:
    """Median of the last `WINDOW` experiences over that of the first ones.

    Args:
        values: Of each experience; the first `SKIPPED` do not count.
    """
    later = values[SKIPPED:]
    window = min(WINDOW, max(1, len(later) // 2))
    return statistics.median(later[-window:]) / statistics.median(later[:window])
