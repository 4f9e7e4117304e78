"""EWC+FR+Replay (Daxberger et al., TMLR 2023): one recipe a stream."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from benchmarks.recipes.frame import SMOKE_FRAME, Frame, Network
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe
from benchmarks.streams import STREAMS

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
    return _ewc_fr_replay(task_labels=task_labels, memory_size=memory_size, **options)


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
    return _ewc_fr_replay(
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
    **options: Any,
) -> Setup:
    """EWC+FR+Replay on Split-CIFAR: CIFAR-10, then 5 x 10 classes of CIFAR-100.

    The authors' options, for their wrong-head Fisher (all): the published strengths
    belong to it. Their FR and FR+Replay have `--strength [0] --tau 0.1 --tau2 1`; EWC
    has `--strength [10] --memory_size 0`.

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
    """
    return _ewc_fr_replay(
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
        **options,
    )


def _ewc_fr_replay(
    *,
    memory_size: NonNegativeInt = 200,
    replay_fraction: ClosedUnitInterval = 0.5,
    selection: Literal["random", "lambda", "lambda_ascending"] = "random",
    on_small: Literal["raise", "clip"] = "raise",
    strength: tuple[NonNegativeFloat, ...] = (1.0,),
    tau: NonNegativeFloat = 1.0,
    tau2: NonNegativeFloat | None = None,
    scale_tau: bool = False,
    temperature: PositiveFloat = 1.0,
    replay_correction: Literal["plain", "centred"] = "plain",
    prior_precision: NonNegativeFloat = 1e-3,
    fisher: Literal["empirical", "ggn", "none"] = "empirical",
    fisher_outputs: Literal["head", "all"] = "head",
    max_grad_norm: PositiveFloat | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    channels_last: bool = False,
    **frame: Any,
) -> Setup:
    """Set up EWC+FR+Replay.

    Args:
        memory_size: Memorable points of each past experience; 0: EWC.
        replay_fraction: Share of them that is replayed; 0: EWC+FR, 1: EWC+Replay.
        selection: How points are chosen.
        on_small: clip: an experience with fewer images gives all it has.
        strength: Lambda of the second experience, the third, ...; the last is
            repeated. [0]: without EWC.
        tau: Weight of the first experience's memory.
        tau2: Weight of all later ones; null: the same.
        scale_tau: Let a memory stand for all data of its experience.
        temperature: Of the functional regulariser.
        replay_correction: centred takes the bias out of the replay term.
        prior_precision: Delta, added to the Fisher.
        fisher: Kind of the Fisher information; none: the K-prior.
        fisher_outputs: Of the head of a task, or of all outputs as published.
        max_grad_norm: Norm to which gradients are clipped.
        precision: bfloat16 trains under autocast.
        channels_last: Keep images and convolutions in this memory format.
    """
    method = {k: v for k, v in locals().items() if k != "frame"}
    protocol = Frame(**frame)

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche_ext.strategies import EWCFRReplay

        wide = fisher_outputs == "all"
        n_classes = STREAMS[protocol.stream].n_classes
        model = protocol.make_linear_model(n_classes if wide else None)
        optimizer, schedule = protocol.make_optimizer(model)
        return EWCFRReplay(
            model=model,
            optimizer=optimizer,
            plugins=schedule,
            memory_resident=protocol.memory_resident,
            evaluator=evaluator,
            device=device,
            **protocol.template_options(),
            **method,
        )

    memory = f"{memory_size} points an experience" if memory_size else "no points"
    weights = (
        "no EWC"
        if not any(strength)
        else f"EWC {', '.join(f'{s:g}' for s in strength)}"
    )
    return protocol.setup(make_strategy, memory=f"{memory}, {weights}")
