"""Avalanche's own Naive and Replay, in the frame of the methods."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import PositiveInt

from benchmarks.recipes.frame import Frame
from benchmarks.recipes.recipe import Device, Evaluator, Setup, Strategy, recipe

SMOKE = {
    "stream": "split_digits",
    "n_experiences": None,
    "first_experience_classes": None,
    "class_order": None,
    "images_per_class": None,
    "network": "small_cnn",
    "train_epochs": 1,
    "milestones": (),
}


@recipe(smoke=SMOKE)
def naive(**frame: Any) -> Setup:
    """Avalanche's Naive with a linear classifier: remembers nothing."""
    return _baseline(0, Frame(**frame))


@recipe(smoke=SMOKE)
def replay(*, exemplars: PositiveInt = 200, **frame: Any) -> Setup:
    """Avalanche's Replay with a linear classifier: half of each batch is memory.

    Args:
        exemplars: Images in memory, shared by the experiences seen so far.
    """
    return _baseline(exemplars, Frame(**frame))


def _baseline(exemplars: int, frame: Frame) -> Setup:
    def make_strategy(*, evaluator: Evaluator, device: Device) -> Strategy:
        from avalanche.models import IncrementalClassifier
        from avalanche.training.supervised import Naive, Replay
        from torch.nn import CrossEntropyLoss, Sequential

        from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin

        extractor = frame.make_feature_extractor()
        model = Sequential(extractor, IncrementalClassifier(extractor.feature_size))
        optimizer, schedule = frame.make_sgd(model)
        resident = MemoryResidentPlugin(memory_resident=frame.memory_resident)
        options = {
            "model": model,
            "optimizer": optimizer,
            "criterion": CrossEntropyLoss(),
            "plugins": [resident, *schedule],
            "evaluator": evaluator,
            "device": device,
            **frame.template_options(),
        }
        return Replay(**options, mem_size=exemplars) if exemplars else Naive(**options)

    memory = f"{exemplars} exemplars in all" if exemplars else "no memory"
    return frame.setup(make_strategy, memory=memory)
