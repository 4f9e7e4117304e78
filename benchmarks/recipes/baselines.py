"""Avalanche's own Naive, Replay, EWC, LwF and iCaRL, in the frame of the methods."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

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
    return _baseline("Naive", Frame(**frame), {}, "no memory")


@recipe(smoke=SMOKE)
def replay(*, exemplars: PositiveInt = 200, **frame: Any) -> Setup:
    """Avalanche's Replay with a linear classifier: half of each batch is memory.

    Args:
        exemplars: Images in memory, shared by the experiences seen so far.
    """
    memory = f"{exemplars} exemplars in all"
    return _baseline("Replay", Frame(**frame), {"mem_size": exemplars}, memory)


@recipe(smoke=SMOKE)
def ewc(*, ewc_lambda: NonNegativeFloat = 100.0, **frame: Any) -> Setup:
    """Avalanche's EWC with a linear classifier: a penalty an experience.

    Its importances are squared gradients of batches, not of single images: their size,
    and so the lambda that suits, depends on the size of the batches.

    Args:
        ewc_lambda: Weight of the penalties.
    """
    memory = "weights and importances of each experience"
    return _baseline("EWC", Frame(**frame), {"ewc_lambda": ewc_lambda}, memory)


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
    _require_one_head("lwf", protocol)
    arguments = {"alpha": alpha, "temperature": temperature}
    return _baseline("LwF", protocol, arguments, "a copy of the network")


@recipe(smoke=SMOKE)
def icarl(
    *, exemplars: PositiveInt = 200, lr: PositiveFloat = 0.2, **frame: Any
) -> Setup:
    """Avalanche's iCaRL: herded exemplars, distillation, nearest class mean.

    Its loss is a binary cross-entropy averaged over the classes, which wants a larger
    learning rate than the others' does. Exemplars are kept as they look in evaluation
    and augmented as the stream's images are. Avalanche counts classes not yet trained
    as means of zero: an image far from all means can be taken for one.

    Args:
        exemplars: Images in memory, shared by the classes seen so far.
        lr: Learning rate at the start of each experience.
    """
    protocol = Frame(lr=lr, **frame)
    _require_one_head("icarl", protocol)
    info = STREAMS[protocol.stream]
    if info.n_classes is None or "class_order" in info.refused:
        raise UsageError(
            f"stream is {info.name}; wanted one whose experiences bring new classes, "
            "of a number known beforehand, as Avalanche's iCaRL does"
        )

    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche.training.supervised import ICaRL
        from torch.nn import Linear, ModuleList

        from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin
        from benchmarks.stream_build import augmentation

        extractor = protocol.make_feature_extractor()
        head = Linear(extractor.feature_size, info.n_classes)
        optimizer, schedule = protocol.make_optimizer(ModuleList([extractor, head]))
        resident = MemoryResidentPlugin(memory_resident=protocol.memory_resident)
        return ICaRL(
            feature_extractor=extractor,
            classifier=head,
            optimizer=optimizer,
            memory_size=exemplars,
            buffer_transform=augmentation(info),
            fixed_memory=True,
            plugins=[resident, *schedule],
            evaluator=evaluator,
            device=device,
            **protocol.template_options(),
        )

    return protocol.setup(make_strategy, memory=f"{exemplars} exemplars in all")


def _require_one_head(name: str, frame: Frame) -> None:
    """Refuse task labels."""
    if frame.task_labels:
        raise UsageError(
            f"task_labels is True; wanted False: {name} has one head for all classes"
        )


def _baseline(name: str, frame: Frame, arguments: dict[str, Any], memory: str) -> Setup:
    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche.training import supervised
        from torch.nn import CrossEntropyLoss

        from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin

        model = frame.make_linear_model()
        optimizer, schedule = frame.make_optimizer(model)
        resident = MemoryResidentPlugin(memory_resident=frame.memory_resident)
        return getattr(supervised, name)(  # type: ignore[no-any-return]
            model=model,
            optimizer=optimizer,
            criterion=CrossEntropyLoss(),
            plugins=[resident, *schedule],
            evaluator=evaluator,
            device=device,
            **frame.template_options(),
            **arguments,
        )

    return frame.setup(make_strategy, memory=memory)
