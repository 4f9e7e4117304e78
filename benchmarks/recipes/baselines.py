"""Avalanche's own Naive, Replay and EWC, in the frame of the methods."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import NonNegativeFloat, PositiveInt

from benchmarks.recipes.frame import SMOKE_FRAME, Frame
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe

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
