"""Bytes a strategy keeps between experiences, by kind."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor, nn

from avalanche_ext.loaders import image_bytes

if TYPE_CHECKING:
    from avalanche.training.templates import SupervisedTemplate

# Objects of these modules hold the stream, the optimizer or nothing, never a memory.
_FOREIGN = ("torch.", "torchvision.", "numpy.", "avalanche.benchmarks.")
_CODE = (type, FunctionType, MethodType, ModuleType)
_MEMORIES = (AvalancheDataset, ExemplarsBuffer, Tensor, tuple)
# Attributes of Avalanche's strategies that belong to the experience under way.
_RUNNING = {"adapted_dataset", "batch_logits", "cur_acts", "loss", "mb_output"}


class MemoryBytes(PluginMetric[dict[str, int]]):
    """Bytes the strategy keeps besides the model it trains, after each experience.

    Published as ``Memory_Bytes/train_phase/<stream>_stream/<kind>`` with kind
    ``exemplars``, ``logits``, ``latents``, ``importances``, ``frozen_copies``,
    ``masks``, ``relevance_rows``, ``detectors``, ``tensors`` where there are any, and
    always ``total``. See :func:`memory_bytes` for what is counted.

    Callbacks: ``after_training_exp`` measures and publishes. The evaluator runs after
    the plugins given to the strategy, so they have updated their memory by then.
    Between experiences it keeps the numbers published last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Forget the last measurement."""
        self.bytes: dict[str, int] = {}

    def result(self) -> dict[str, int]:
        """Return the last measurement: bytes by kind, and their ``total``."""
        return {**self.bytes, "total": sum(self.bytes.values())}

    def after_training_exp(self, strategy: SupervisedTemplate) -> list[MetricValue]:
        """Measure and publish."""
        self.bytes = memory_bytes(strategy)
        name = get_metric_name(self, strategy, add_experience=False, add_task=False)
        step = strategy.clock.train_iterations
        return [
            MetricValue(self, f"{name}/{kind}", value, step)
            for kind, value in self.result().items()
        ]

    def __str__(self) -> str:
        return "Memory_Bytes"


def memory_bytes(strategy: SupervisedTemplate) -> dict[str, int]:
    """Count the bytes that a strategy and its plugins keep, besides the trained model.

    A plugin with a method ``memory_bytes() -> dict[str, int]`` is asked. Of any other,
    Avalanche's own among them, everything reachable from its attributes is counted:
    data sets and exemplar buffers as raw images (``exemplars``), what is stored with
    each image (``logits``), modules (``frozen_copies``), tensors below an attribute
    whose name holds "importance" (``importances``) and all other tensors
    (``tensors``). iCaRL's exemplars, floats in Avalanche, count as the 8-bit images
    they are made of. Of strategies that keep a memory themselves, as Avalanche's
    ``Cumulative``, ``DER`` and ``AR1`` do, it counts likewise; those of this package
    keep theirs in plugins. Storage shared with ``strategy.model`` or met before counts
    once. Optimizer and stream do not count.

    Args:
        strategy: Any strategy; its plugins are read, nothing is changed.

    Returns:
        Bytes by kind, only kinds with more than 0, in alphabetical order.
    """
    total: Counter[str] = Counter()
    walk = _Walk(strategy)
    for plugin in strategy.plugins:
        if callable(own := getattr(plugin, "memory_bytes", None)):
            total.update(own())
        elif not isinstance(plugin, EvaluationPlugin):
            walk.add(plugin, "tensors")
    if not any(_is_ours(base) for base in type(strategy).__mro__):
        for name, value in vars(strategy).items():
            if isinstance(value, _MEMORIES) and name not in _RUNNING:
                walk.add(value, "tensors")
    total.update(walk.bytes)
    return {kind: int(total[kind]) for kind in sorted(total) if total[kind] > 0}


class _Walk:
    """Sum the bytes of what is reachable from some objects, each thing once."""

    def __init__(self, strategy: SupervisedTemplate) -> None:
        self.bytes: Counter[str] = Counter()
        self._met = {id(strategy)}
        self._storages: set[tuple[str, int]] = set()
        self.add(strategy.model, "trained")
        del self.bytes["trained"]

    def add(self, thing: Any, kind: str) -> None:
        """Add the bytes below ``thing``, tensors under the name ``kind``."""
        if isinstance(thing, Tensor):
            self._add_storage(thing, kind)
        elif id(thing) not in self._met:
            self._met.add(id(thing))
            self._add_object(thing, kind)

    def _add_object(self, thing: Any, kind: str) -> None:
        if isinstance(thing, AvalancheDataset):
            self._add_exemplars(thing)
        elif isinstance(thing, ExemplarsBuffer):
            self._add_exemplars(thing.buffer)
        elif isinstance(thing, Mapping):
            self._add_all(thing.values(), kind)
        elif isinstance(thing, list | tuple | set | frozenset | deque):
            self._add_all(thing, kind)
        elif isinstance(thing, nn.Module):
            copied = kind if kind == "trained" else "frozen_copies"
            self._add_all(vars(thing).values(), copied)
        elif not isinstance(thing, _CODE) and not _is_foreign(thing):
            for name, value in getattr(thing, "__dict__", {}).items():
                if name == "x_memory":  # of iCaRL
                    self.bytes["exemplars"] += sum(images.numel() for images in value)
                else:
                    self.add(value, "importances" if "importance" in name else kind)

    def _add_exemplars(self, data: AvalancheDataset[Any]) -> None:
        self.bytes["exemplars"] += image_bytes(data) if len(data) else 0
        for name, values in data._data_attributes.items():
            if name not in ("targets", "targets_task_labels"):
                stored = [value for value in values if isinstance(value, Tensor)]
                self.bytes["logits"] += sum(value.nbytes for value in stored)

    def _add_all(self, things: Iterable[Any], kind: str) -> None:
        for thing in things:
            self.add(thing, kind)

    def _add_storage(self, tensor: Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key = (str(tensor.device), storage.data_ptr())
        if key not in self._storages:
            self._storages.add(key)
            self.bytes[kind] += storage.nbytes()


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("avalanche_ext.")


def _is_foreign(thing: Any) -> bool:
    return f"{type(thing).__module__}.".startswith(_FOREIGN)
