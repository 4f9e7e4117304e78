"""What a checkpoint and the strategy it is put into must have in common."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from avalanche.benchmarks import CLExperience
from avalanche.models import DynamicModule
from torch import nn

from avalanche_ext._version import __version__
from avalanche_ext.checkpoint.errors import CheckpointError

#: Version of the file format.
FORMAT = 1

#: Kinds of arguments that are compared.
_KEPT = (bool, int, float, str, tuple, type(None))


def header_of(strategy: Any, experiences: list[CLExperience]) -> dict[str, Any]:
    """What must be equal in the strategy and stream that go on."""
    return {
        "format": FORMAT,
        "version": __version__,
        "strategy": type(strategy).__qualname__,
        "plugins": [type(plugin).__qualname__ for plugin in strategy.plugins],
        "arguments": _own_arguments(strategy) | _arguments(strategy.plugins),
        "optimizer": type(strategy.optimizer).__qualname__,
        "model": type(strategy.model).__qualname__,
        "parameters": _fixed_parameters(strategy.model),
        "device": strategy.device.type,
        "n_experiences": len(experiences),
        "classes": [_classes(experience) for experience in experiences],
        "samples": [len(experience.dataset) for experience in experiences],
        "order": [_order(experience) for experience in experiences],
    }


def _own_arguments(strategy: Any) -> dict[str, Any]:
    """Plain constructor arguments that a strategy of this package keeps by name."""
    kind = type(strategy)
    if kind.__module__.split(".")[0] != "avalanche_ext":
        return {}
    found = {
        f"{kind.__name__}.{name}": _plain(vars(strategy)[name])
        for name in inspect.signature(kind).parameters
        if name in vars(strategy) and name not in ("train_mb_size", "train_epochs")
    }
    return {name: value for name, value in found.items() if isinstance(value, _KEPT)}


def _arguments(plugins: Iterable[Any]) -> dict[str, Any]:
    """Plain constructor arguments of this package's plugins, and of their buffers.

    Those that the object's own state holds may have changed since, and are left out.
    """
    found: dict[str, Any] = {}
    met: dict[str, int] = {}
    for part in plugins:
        kind = type(part)
        if kind.__module__.split(".")[0] != "avalanche_ext":
            continue
        state = part.state_dict() if hasattr(part, "state_dict") else {}
        number = met[kind.__name__] = met.get(kind.__name__, 0) + 1
        title = f"{kind.__name__}[{number}]" if number > 1 else kind.__name__
        for name in inspect.signature(kind).parameters:
            value = _plain(getattr(part, name, part))
            if isinstance(value, _KEPT):
                if name not in state:
                    found[f"{title}.{name}"] = value
            elif value is not part:
                found |= _arguments([value])
    return found


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, which every file can hold."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _plain(tuple(value.tolist()))
    if isinstance(value, Fraction):
        return float(value)
    if type(value) is tuple:
        return tuple(_plain(item) for item in value)
    return value


def _fixed_parameters(model: nn.Module) -> dict[str, list[int]]:
    """Shapes of the parameters outside of the parts that grow."""
    growing = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, part in model.named_modules()
        if isinstance(part, DynamicModule)
        for name, _ in part.named_parameters()
    }
    return {
        name: list(parameter.shape)
        for name, parameter in model.named_parameters()
        if name not in growing
    }


def _classes(experience: CLExperience) -> list[int] | None:
    """Classes of an experience, sorted; None if it does not tell."""
    classes = getattr(experience, "classes_in_this_experience", None)
    return None if classes is None else sorted(int(c) for c in classes)


def _order(experience: CLExperience) -> int:
    """Checksum of the targets of samples all over an experience."""
    targets = getattr(experience.dataset, "targets", ())
    sample = [str(targets[i]) for i in range(0, len(targets), len(targets) // 999 + 1)]
    return zlib.crc32(str(sample).encode())


def require_same(path: Path, saved: dict[str, Any], ours: dict[str, Any]) -> None:
    """Refuse a checkpoint of another strategy, model or stream."""
    for key in ("strategy", "plugins", "optimizer", "model", "classes", "samples"):
        if saved[key] != ours[key]:
            what = f"{key} by experience" if key in ("classes", "samples") else key
            raise CheckpointError(
                f"{path} was saved with {what} {saved[key]}; this run has {ours[key]}"
            )
    for name, value in ours["arguments"].items():
        if saved["arguments"].get(name, value) != value:
            raise CheckpointError(
                f"{path} was saved with {name} = {saved['arguments'][name]!r}; this run "
                f"has {value!r}"
            )
    for i, (order, own) in enumerate(zip(saved["order"], ours["order"], strict=True)):
        if order != own:
            raise CheckpointError(
                f"{path} was saved with other samples in experience {i}, or in another "
                "order; construct the stream with the same data and seed"
            )
    for name in {**saved["parameters"], **ours["parameters"]}:
        shape, own = saved["parameters"].get(name), ours["parameters"].get(name)
        if shape != own:
            raise CheckpointError(
                f"{path} was saved with shape {shape} of parameter {name}; this model "
                f"has {own}"
            )
    if saved["device"] == "cpu" != ours["device"]:
        raise CheckpointError(
            f"{path} was saved with device cpu; this strategy has {ours['device']}. "
            "What a plugin keeps on the CPU on purpose could not be told apart"
        )
