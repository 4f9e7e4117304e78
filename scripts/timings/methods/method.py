"""What a method is timed with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch


@dataclass(frozen=True)
class Frame:
    """What all three sides of a comparison share.

    Attributes:
        device: Where they train.
        n_batches: Whole mini-batches of new images in an experience.
        switches: Arguments of `ResidentTemplate` for ours, such as ``precision``.
    """

    device: torch.device
    n_batches: int
    switches: dict[str, Any] = field(default_factory=dict)


class Run(NamedTuple):
    """A strategy before training, and its data.

    The driver trains ``experiences[0]``, which does not count, then ``experiences[1]``.

    Attributes:
        strategy: Ours, or Avalanche's; its evaluator measures as little as it can.
        experiences: Two, of as many images each.
        test_stream: As many images as one experience of the former has.
    """

    strategy: Any
    experiences: Sequence[Any]
    test_stream: Any


@dataclass(frozen=True)
class Method:
    """One method, with all it is compared to.

    Attributes:
        name: As in ``--method``.
        what: Network, images, mini-batch, memory, in words.
        nearest: Name of Avalanche's nearest strategy.
        batch_size: New images, or images of whatever origin, in a mini-batch of ours.
        ours: From a frame and further plugins to our strategy.
        theirs: The same of Avalanche's, with its own network of the same kind, the same
            images, mini-batches and number of remembered images.
        bare: From a frame to a function that trains one epoch like ours of the second
            experience, and returns how many images went through the network in training
            mode. It does the arithmetic of ours (network, losses, passes of frozen
            copies, batches of new and old) on tensors in memory with torch and the
            functions of ``avalanche_ext.functional`` alone.
        inference: From a trained run of ours to a function that answers its test stream
            with the same arithmetic as evaluation, and returns the number of images.
        slow: Names of the figures of ``timing.py`` that compare parts of it with slow
            restatements.
    """

    name: str
    what: str
    nearest: str
    batch_size: int
    ours: Callable[[Frame, Sequence[Any]], Run]
    theirs: Callable[[Frame, Sequence[Any]], Run]
    bare: Callable[[Frame], Callable[[], int]]
    inference: Callable[[Run], Callable[[], int]]
    slow: tuple[str, ...] = ()


def stream_accuracy() -> Any:
    """An evaluator of the accuracy on a stream, and of nothing in training."""
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training.plugins import EvaluationPlugin

    return EvaluationPlugin(accuracy_metrics(stream=True), loggers=[])


def template_options(frame: Frame, batch_size: int) -> dict[str, Any]:
    """Arguments of Avalanche's template that all strategies have in common."""
    return {
        "train_mb_size": batch_size,
        "eval_mb_size": batch_size,
        "device": frame.device,
        "evaluator": stream_accuracy(),
    }
