"""Avalanche's own strategies without exemplars, in the frame of the methods."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import NonNegativeFloat, PositiveFloat

from benchmarks.names import UsageError
from benchmarks.recipes.frame import SMOKE_FRAME, Frame
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe
from benchmarks.streams import STREAMS

SMOKE = {
    **SMOKE_FRAME,
    "network": "small_cnn",
    "milestones": (),
}


@recipe(smoke=SMOKE)
def naive(**frame: Any) -> Setup:
    """Avalanche's Naive with a linear classifier: remembers nothing."""
    return baseline("Naive", Frame(**frame), {}, "no memory")


@recipe(smoke=SMOKE)
def joint(*, fresh_weights: bool = False, **frame: Any) -> Setup:
    """Avalanche's Cumulative with a linear classifier: all data seen so far.

    Not continual learning, but what its methods are measured against. With task labels
    each mini-batch holds as many images of each task.

    Args:
        fresh_weights: Train each experience from the first weights, not the last.
    """
    protocol = Frame(**frame)
    n_tasks = protocol.n_experiences or STREAMS[protocol.stream].n_experiences
    if protocol.task_labels and n_tasks and protocol.train_mb_size < n_tasks:
        raise UsageError(
            f"train_mb_size is {protocol.train_mb_size}; wanted at least {n_tasks}, one "
            "image of each task, as Avalanche's loader for task labels does"
        )
    memory = "all images so far" + (", fresh weights" if fresh_weights else "")
    return baseline("Cumulative", protocol, {}, memory, fresh_weights=fresh_weights)


@recipe(smoke=SMOKE)
def ewc(*, ewc_lambda: NonNegativeFloat = 100.0, **frame: Any) -> Setup:
    """Avalanche's EWC with a linear classifier: a penalty an experience.

    Its importances are squared gradients of batches, not of single images: their size,
    and so the lambda that suits, depends on the size of the batches.

    Args:
        ewc_lambda: Weight of the penalties.
    """
    memory = "weights and importances of each experience"
    return baseline("EWC", Frame(**frame), {"ewc_lambda": ewc_lambda}, memory)


@recipe(smoke=SMOKE)
def lwf(
    *,
    alpha: NonNegativeFloat = 1.0,
    temperature: PositiveFloat = 2.0,
    **frame: Any,
) -> Setup:
    """Avalanche's LwF with a linear classifier: distils from the model before.

    Args:
        alpha: Weight of the distillation.
        temperature: By which logits are divided in the distillation.
    """
    protocol = Frame(**frame)
    require_one_head("lwf", protocol)
    arguments = {"alpha": alpha, "temperature": temperature}
    return baseline("LwF", protocol, arguments, "a copy of the network")


def require_one_head(name: str, frame: Frame) -> None:
    """Refuse task labels.

    Args:
        name: Of the recipe.
        frame: Its options.

    Raises:
        UsageError: If there are task labels.
    """
    if frame.task_labels:
        raise UsageError(
            f"task_labels is True; wanted False: {name} has one head for all classes"
        )


def baseline(
    name: str,
    frame: Frame,
    arguments: dict[str, Any],
    memory: str,
    *,
    fresh_weights: bool = False,
) -> Setup:
    """Set up one of Avalanche's strategies with a linear classifier that grows.

    Args:
        name: Of the strategy.
        frame: Stream, network, optimizer and schedule.
        arguments: Its own arguments.
        memory: What it remembers, in a few words.
        fresh_weights: Train each experience from the first weights.

    Returns:
        What a recipe returns.
    """

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche.training import supervised
        from torch.nn import CrossEntropyLoss

        from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin

        model = frame.make_linear_model()
        optimizer, plugins = frame.make_optimizer(model)
        plugins.insert(0, MemoryResidentPlugin(memory_resident=frame.memory_resident))
        if fresh_weights:
            from benchmarks.training.fresh_weights import FreshWeightsPlugin

            plugins.append(FreshWeightsPlugin(next(model.children())))
        return getattr(supervised, name)(  # type: ignore[no-any-return]
            model=model,
            optimizer=optimizer,
            criterion=CrossEntropyLoss(),
            plugins=plugins,
            evaluator=evaluator,
            device=device,
            **frame.template_options(),
            **arguments,
        )

    return frame.setup(make_strategy, memory=memory)
